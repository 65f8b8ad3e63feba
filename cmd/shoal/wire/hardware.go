package wire

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/configs"
)

// Hardware is what of this device's hardware the configuration offers to pods.
func Hardware(c configs.Agent) hardware.Config {
	h := hardware.Config{Classes: c.Discover.Classes}
	for _, m := range c.Discover.Exclude {
		h.Exclude = append(h.Exclude, m)
	}
	for _, d := range c.Devices {
		h.Declared = append(h.Declared, hardware.Declared{Resource: d.Resource, Path: d.Path, ContainerPath: d.ContainerPath, Match: d.Match, Machine: d.Machine})
	}
	return h
}

// rescan looks at the hardware again on SIGHUP: where the kernel's messages do not come, in a container as a rule, udev can send one.
func rescan(ctx context.Context, look func()) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			look()
		}
	}
}
