package dev

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/shoal-edge/shoal/agent/runtime/containerd"
)

// containerdSocket is where a device's containerd listens, inside the device: the default place, as /run is the device's own.
const containerdSocket = "/run/containerd/containerd.sock"

func (d *Device) cniConfDir() string      { return filepath.Join(d.Dir, "cni") }
func (d *Device) registryConfDir() string { return filepath.Join(d.Dir, "registries") }

func (l *Lab) startContainerd(ctx context.Context, d *Device) error {
	for _, dir := range []string{d.cniConfDir(), d.registryConfDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	file := filepath.Join(d.Dir, "containerd.toml")
	config := containerd.Config{
		Root:             filepath.Join(d.Dir, "containerd"),
		CNIConfDir:       d.cniConfDir(),
		RegistryDir:      d.registryConfDir(),
		RestrictOOMScore: true,
	}
	if err := os.WriteFile(file, []byte(config.TOML()), 0o644); err != nil {
		return err
	}
	p, err := d.box.start(ctx, d.ContainerdLog(), "containerd", "--config", file)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.containerd = p
	d.mu.Unlock()
	socket := d.ContainerdSocket()
	return wait(ctx, func() error {
		if !p.running() {
			return fmt.Errorf("%w: it ended at once", errFinal)
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
