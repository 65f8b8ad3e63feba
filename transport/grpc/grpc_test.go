package grpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/grpc"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Lab { return newLab(t) })
}

// lab is a cluster on the loopback interface, with the real port and real certificates.
type lab struct {
	ca *pki.CA

	mu    sync.Mutex
	stops map[string]func()
	conns map[string][]net.Conn // by device
}

func newLab(t *testing.T) *lab {
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return &lab{ca: ca, stops: map[string]func(){}, conns: map[string][]net.Conn{}}
}

func (l *lab) identity(t *testing.T, server bool, name string) *pki.Identity {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var cert []byte
	if server {
		cert, err = l.ca.IssueServer(name, key.Public(), nil)
	} else {
		cert, err = l.ca.Issue(pki.NodeSubject(name), key.Public(), nil, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.NewIdentity(l.ca.CertPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (l *lab) Listen(t *testing.T, name string, a transport.Acceptor) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	mux := pki.NewMux(tcp, l.identity(t, true, name), logger)
	server := grpc.NewServer(grpc.ServerConfig{Acceptor: a, Logger: logger, Device: func(state tls.ConnectionState) (string, error) {
		if name, ok := pki.NodeName(state.PeerCertificates[0]); ok {
			return name, nil
		}
		return "", errors.New("not a device")
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = mux.Run(ctx) })
	group.Go(func() {
		if err := server.Run(ctx, mux.Link()); err != nil && ctx.Err() == nil {
			t.Errorf("server: %v", err)
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stops[tcp.Addr().String()] = stop
	return tcp.Addr().String()
}

func (l *lab) Stop(address string) {
	l.mu.Lock()
	stop := l.stops[address]
	l.mu.Unlock()
	stop()
}

func (l *lab) Carrier(t *testing.T, device string, servers ...string) transport.Carrier {
	t.Helper()
	id := l.identity(t, false, device)
	return grpc.NewClient(grpc.ClientConfig{Device: device, Servers: servers, Dial: func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := id.Dial(ctx, address, pki.ProtoLink)
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns[device] = append(l.conns[device], conn)
		return conn, nil
	}})
}

// Break cuts at the socket, without a word of goodbye.
func (l *lab) Break(device string) {
	l.mu.Lock()
	conns := l.conns[device]
	delete(l.conns, device)
	l.mu.Unlock()
	for _, conn := range conns {
		conn.(*tls.Conn).NetConn().Close()
	}
}
