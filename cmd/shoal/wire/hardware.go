package wire

import (
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
		h.Declared = append(h.Declared, hardware.Declared{Resource: d.Resource, Path: d.Path, ContainerPath: d.ContainerPath, Match: d.Match})
	}
	return h
}
