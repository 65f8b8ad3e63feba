package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"time"

	"github.com/shoal-edge/shoal/pki"
)

// Pauses of renewal: how long to sleep at most before looking at the calendar again (clocks jump), and after a failure.
const (
	renewLook  = 12 * time.Hour
	renewRetry = 10 * time.Minute
)

// renew renews the certificates when two thirds of their life are over, or when a server refuses them, until ctx ends. Servers
// hold the authority and sign their own; agents ask.
func renew(ctx context.Context, o Options, id *identity, role pki.Role, servers func() []string) error {
	due := false
	for {
		pause := min(id.node.RenewAt().Sub(pki.Now()), renewLook)
		if due || pause <= 0 {
			pause = renewRetry
			if err := renewOnce(ctx, o, id, role, servers()); err != nil {
				o.Logger.Warn("the certificate could not be renewed", "expires", id.node.Leaf().NotAfter, "error", err)
			} else {
				o.Logger.Info("renewed the certificate", "expires", id.node.Leaf().NotAfter)
			}
		}
		// A refusal right after a renewal is not cured by another one.
		refused := id.refused
		if pause == renewRetry {
			refused = nil
		}
		due = false
		select {
		case <-refused:
			due = true
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// linkBy returns how a connection for the mailbox is opened. A server that has it end with a TLS alert refuses the certificate: by
// that server's clock, which may be right, it has ended.
func (id *identity) linkBy(protocol string, p pki.Probing) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := id.node.DialLink(ctx, address, protocol, p)
		if err != nil {
			return nil, err
		}
		return alertedConn{Conn: conn, refused: id.refused}, nil
	}
}

// alertedConn tells when the other side ends it with a TLS alert: with TLS 1.3 that comes after the handshake.
type alertedConn struct {
	*tls.Conn
	refused chan<- struct{}
}

func (c alertedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" { // so crypto/tls calls it
		select {
		case c.refused <- struct{}{}:
		default: // it is known already
		}
	}
	return n, err
}

func renewOnce(ctx context.Context, o Options, id *identity, role pki.Role, servers []string) error {
	dir := filepath.Join(o.Config.DataDir, "pki")
	key, err := pki.LoadKey(dir, "node")
	if err != nil {
		return err
	}
	request := joinRequest(o.Config, role)
	request.Key = key
	if len(servers) > 0 {
		request.Servers = servers
	}
	var grant *pki.Grant
	if role == pki.RoleServer {
		grant, err = id.ca.Grant(request)
	} else {
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		grant, err = pki.Renew(bounded, id.node, request)
	}
	if err != nil {
		return err
	}
	if err := save(dir, o, request, grant); err != nil {
		return err
	}
	if role == pki.RoleServer {
		if err := id.server.Replace(grant.Server, key); err != nil {
			return err
		}
	}
	return id.node.Replace(grant.Node, key)
}
