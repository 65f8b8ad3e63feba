package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoal-edge/shoal/durable"
)

// Registry says how this device gets images of one registry; see configs.Registry.
type Registry struct {
	Host, Endpoint         string
	Mirrors                []string
	CAFile                 string
	InsecureSkipVerify     bool
	Username, PasswordFile string
}

// everyRegistry is the folder of the registries that have none of their own.
const everyRegistry = "_default"

// ours is the first line of a file that was written here. One for every registry that begins otherwise is somebody else's, and stays.
const ours = "# Written by shoal.\n"

// hosts is the hosts.toml of the registry, as containerd reads it: the neighbours first, which know pieces by their digests only, the
// mirrors in their order, the registry itself (server, with the settings above the first table) last.
func (r Registry) hosts(neighbours string) string {
	var b strings.Builder
	b.WriteString(ours)
	near := ""
	if neighbours != "" {
		near = fmt.Sprintf("\n[host.%q]\ncapabilities = [\"pull\"]\n", neighbours)
	}
	if r.Host == everyRegistry {
		b.WriteString(near)
		return b.String()
	}
	server := r.Endpoint
	if server == "" {
		server = "https://" + r.Host
		if r.Host == hub {
			server = "https://registry-1.docker.io"
		}
	}
	settings := "capabilities = [\"pull\", \"resolve\"]\n"
	if r.CAFile != "" {
		settings += fmt.Sprintf("ca = %q\n", r.CAFile)
	}
	if r.InsecureSkipVerify {
		settings += "skip_verify = true\n"
	}
	_, _ = fmt.Fprintf(&b, "server = %q\n%s%s", server, settings, near)
	hosts := r.Mirrors
	if len(hosts) == 0 {
		hosts = []string{server} // containerd takes no notice of a file without a host
	}
	for _, host := range hosts {
		_, _ = fmt.Fprintf(&b, "\n[host.%q]\n%s", host, settings)
	}
	return b.String()
}

// writeRegistries tells containerd where to ask for the images of a registry. containerd reads the files at each pull.
func (a *Agent) writeRegistries() error {
	if a.c.RegistryConfDir == "" {
		return nil
	}
	for _, r := range a.c.Registries {
		if _, err := durable.Update(filepath.Join(a.c.RegistryConfDir, r.Host, "hosts.toml"), []byte(r.hosts(a.c.Mirror)), 0o644); err != nil {
			return fmt.Errorf("registry %s: %w", r.Host, err)
		}
	}
	every := filepath.Join(a.c.RegistryConfDir, everyRegistry, "hosts.toml")
	old, err := os.ReadFile(every)
	switch {
	case err == nil && !strings.HasPrefix(string(old), ours):
		if a.c.Mirror != "" {
			a.c.Logger.Warn("images are not asked of neighbours: the settings for every registry are somebody else's", "file", every)
		}
		return nil
	case err != nil && a.c.Mirror == "":
		return nil
	}
	if _, err := durable.Update(every, []byte(Registry{Host: everyRegistry}.hosts(a.c.Mirror)), 0o644); err != nil {
		return fmt.Errorf("registries: %w", err)
	}
	return nil
}
