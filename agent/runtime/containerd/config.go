// Package containerd owns the configuration file of a device's containerd: only what differs from its defaults, and what
// keeps it small. configs/containerd.toml is the same for a board with Debian's or Raspberry Pi OS's package.
package containerd

import (
	"fmt"
	"strings"

	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// Config says where one containerd keeps its things. Several can run on one machine when all folders differ.
type Config struct {
	Root       string // images and snapshots; survives a reboot. Default: /var/lib/containerd
	State      string // sockets and mounts of running containers. Default: /run/containerd
	Socket     string // Default: State/containerd.sock
	CNIConfDir string // Default: /etc/cni/net.d
	CNIBinDir  string // Default: /usr/lib/cni
	// RegistryDir holds a folder for each registry host, with hosts.toml. Default: /etc/containerd/certs.d
	RegistryDir string
	// SandboxImage is the pause image. Default: image.PauseRef
	SandboxImage string
	// RestrictOOMScore is for where this process may not lower oom_score_adj (a container, a namespace).
	RestrictOOMScore bool
	// SystemdCgroup makes systemd own the cgroups; the default is cgroupfs.
	SystemdCgroup bool
	// MaxConcurrentDownloads of layers. Default: 3
	MaxConcurrentDownloads int
}

// disabled are plugins that no shoal device needs: other snapshotters, image decryption, metrics of cgroups (the agent reads
// what it needs), the restart manager (the agent restarts). The runtime of containerd 1.0 must stay: 1.6 starts no tasks without.
var disabled = []string{
	"io.containerd.snapshotter.v1.aufs",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.zfs",
	"io.containerd.internal.v1.restart",
	"io.containerd.internal.v1.tracing",
	"io.containerd.tracing.processor.v1.otlp",
	"io.containerd.monitor.v1.cgroups",
}

// TOML is the file.
func (c Config) TOML() string {
	c = c.withDefaults()
	cri := `plugins."io.containerd.grpc.v1.cri"`
	var b strings.Builder
	p := func(format string, a ...any) { _, _ = fmt.Fprintf(&b, format+"\n", a...) }
	p("version = 2")
	p("root = %q", c.Root)
	p("state = %q", c.State)
	p("disabled_plugins = [%s]", quoted(disabled))
	p("")
	p("[grpc]")
	p("  address = %q", c.Socket)
	p("[ttrpc]")
	p("  address = %q", c.Socket+".ttrpc")
	p("")
	p("[%s]", cri)
	p("  sandbox_image = %q", c.SandboxImage)
	p("  max_concurrent_downloads = %d", c.MaxConcurrentDownloads)
	p("  # Below state, so that nothing outside of it is left when a device goes.")
	p("  netns_mounts_under_state_dir = true")
	p("  restrict_oom_score_adj = %t", c.RestrictOOMScore)
	p("  stats_collect_period = 60")
	p("[%s.cni]", cri)
	p("  bin_dir = %q", c.CNIBinDir)
	p("  conf_dir = %q", c.CNIConfDir)
	p("[%s.registry]", cri)
	p("  config_path = %q", c.RegistryDir)
	p("[%s.containerd]", cri)
	p("  snapshotter = \"overlayfs\"")
	p("  # Layers are kept as they were fetched, so that a device can give them to its neighbours.")
	p("  discard_unpacked_layers = false")
	p("[%s.containerd.runtimes.runc]", cri)
	p("  runtime_type = \"io.containerd.runc.v2\"")
	p("[%s.containerd.runtimes.runc.options]", cri)
	p("  SystemdCgroup = %t", c.SystemdCgroup)
	return b.String()
}

func (c Config) withDefaults() Config {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.Root, "/var/lib/containerd")
	set(&c.State, "/run/containerd")
	set(&c.Socket, c.State+"/containerd.sock")
	set(&c.CNIConfDir, "/etc/cni/net.d")
	set(&c.CNIBinDir, "/usr/lib/cni")
	set(&c.RegistryDir, "/etc/containerd/certs.d")
	set(&c.SandboxImage, image.PauseRef)
	if c.MaxConcurrentDownloads == 0 {
		c.MaxConcurrentDownloads = 3
	}
	return c
}

func quoted(values []string) string {
	q := make([]string, len(values))
	for i, v := range values {
		q[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(q, ", ")
}
