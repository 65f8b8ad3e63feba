package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

// seat is what a member of the control plane has to itself before it does anything: its data folder, and the port at which it
// is reached.
type seat struct {
	lock     *os.File
	listener net.Listener
	port     string
	address  string // as the others reach it
}

func takeSeat(ctx context.Context, o Options) (*seat, error) {
	lock, err := lockDataDir(o.Config.DataDir)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, o.Config.Server.Listen, "server.listen")
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s := &seat{lock: lock, listener: listener}
	if _, s.port, err = net.SplitHostPort(listener.Addr().String()); err != nil {
		return nil, errors.Join(err, s.leave())
	}
	s.address = net.JoinHostPort(o.Config.AdvertiseAddress, s.port)
	return s, nil
}

// leave gives both back.
func (s *seat) leave() error {
	_ = s.listener.Close() // who serves the port may have closed it
	return s.lock.Close()
}

// listen takes a port; key is where the configuration names it.
func listen(ctx context.Context, address, key string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; free the port or choose another %s", err, key)
	}
	return l, nil
}
