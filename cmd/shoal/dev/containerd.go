package dev

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// containerdSocket is where a device's containerd listens, inside the device: the default place, as /run is the device's own.
const containerdSocket = "/run/containerd/containerd.sock"

func (d *Device) cniConfDir() string      { return filepath.Join(d.Dir, "cni") }
func (d *Device) registryConfDir() string { return filepath.Join(d.Dir, "registries") }

// containerdConfig is for containerd 1.6 and later.
const containerdConfig = `version = 2
root = %q
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.internal.v1.opt"]

[grpc]
  address = %q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "shoal.dev/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
`

func (l *Lab) startContainerd(ctx context.Context, d *Device) error {
	for _, dir := range []string{d.cniConfDir(), d.registryConfDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	file := filepath.Join(d.Dir, "containerd.toml")
	text := fmt.Sprintf(containerdConfig, filepath.Join(d.Dir, "containerd"), containerdSocket, d.cniConfDir(), d.registryConfDir())
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
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
