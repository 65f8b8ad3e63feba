package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/pki"
)

// addressLook is how often a member looks whether its device's address is still the one that it told. An address counts as new
// when it is seen twice: DHCP and roaming go through others.
const addressLook = 15 * time.Second

// followAddress ends with an error when the device's address has changed: started anew, the process tells the others the new one.
// Pods run on meanwhile, and another server leads. It does not end if the configuration says the address.
func followAddress(ctx context.Context, told string, present func() string, every time.Duration) error {
	before := told
	for {
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return ctx.Err()
		}
		now := present()
		if now != told && now == before {
			return fmt.Errorf("this device's address was %s and is %s now: start again", told, now)
		}
		before = now
	}
}

// certifyAddress renews what names the server's address: its certificate, and the administrator's kubeconfig, if it is there.
func certifyAddress(ctx context.Context, o Options, id *identity) error {
	if id.server.Leaf().VerifyHostname(o.Config.AdvertiseAddress) != nil {
		o.Logger.Info("this server has a new address", "address", o.Config.AdvertiseAddress)
		return renewOnce(ctx, o, id, pki.RoleServer, nil)
	}
	have, err := kube.Load(KubeconfigPath(o.Config))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if at, urlErr := apiURL(o.Config); urlErr != nil || err == nil && have.Server() == at {
		return urlErr
	}
	return saveKubeconfig(o.Config, id.ca)
}
