package wire

import (
	"context"
	"path/filepath"
	"time"

	"github.com/shoal-edge/shoal/pki"
)

// Pauses of renewal: how long to sleep at most before looking at the calendar again (clocks jump), and after a failure.
const (
	renewLook  = 12 * time.Hour
	renewRetry = 10 * time.Minute
)

// renew renews the certificates when two thirds of their life are over, until ctx ends. Servers hold the authority and sign
// their own; agents ask.
func renew(ctx context.Context, o Options, id *identity, role pki.Role, servers func() []string) error {
	for {
		pause := min(id.node.RenewAt().Sub(pki.Now()), renewLook)
		if pause <= 0 {
			pause = renewRetry
			if err := renewOnce(ctx, o, id, role, servers()); err != nil {
				o.Logger.Warn("the certificate could not be renewed", "expires", id.node.Leaf().NotAfter, "error", err)
			} else {
				o.Logger.Info("renewed the certificate", "expires", id.node.Leaf().NotAfter)
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
