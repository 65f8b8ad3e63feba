package dev

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-edge/shoal/configs"
)

// writeConfig writes the device's configuration file and returns its path.
func (l *Lab) writeConfig(d *Device) (string, error) {
	c := configs.Config{
		NodeName:         d.Name,
		DataDir:          d.Data,
		AdvertiseAddress: d.Address,
		Agent: configs.Agent{
			Containerd:      containerdSocket,
			CNIConfDir:      d.cniConfDir(),
			RegistryConfDir: d.registryConfDir(),
			CgroupParent:    cgroupOf(l.cfg.Name) + "/" + d.Name,
			Heartbeat:       2500 * time.Millisecond,
			Discover:        configs.Discover{Classes: []string{"none"}}, // the machine's hardware is not each device's
		},
	}
	if d.Role == Server {
		c.Server = configs.Server{
			NodeGrace: 5 * time.Second, ReplaceAfter: 2 * time.Second, ElectionTimeout: 500 * time.Millisecond, Voters: l.voters(),
		}
	}
	if d.token != "" {
		c.Join.Token = d.token
		for _, other := range l.devices {
			if other.Role == Server && other != d {
				c.Join.Servers = append(c.Join.Servers, net.JoinHostPort(other.Address, apiPort))
			}
		}
	}
	if l.cfg.Images != nil {
		for _, host := range append([]string{RegistryHost}, l.cfg.ImageHosts...) {
			c.Agent.Registries = append(c.Agent.Registries, configs.Registry{Host: host, Endpoint: "http://" + l.registryAddress()})
		}
	}
	if d.serial != nil {
		c.Agent.Devices = []configs.Device{{Resource: "shoal.dev/serial", Path: d.serial.path, ContainerPath: "/dev/serial0"}}
	}
	if l.cfg.Edit != nil {
		l.cfg.Edit(d, &c)
	}
	text, err := configs.Render(c)
	if err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	file := filepath.Join(d.Dir, string(d.Role)+".yaml")
	// The file holds the join token.
	return file, os.WriteFile(file, text, 0o600)
}

// voters is how many of the lab's servers have a vote.
func (l *Lab) voters() int {
	servers := 0
	for _, d := range l.devices {
		if d.Role == Server {
			servers++
		}
	}
	return min(5, servers-(servers+1)%2)
}
