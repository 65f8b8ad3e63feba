package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Registry says how this device gets images of one registry; see configs.Registry.
type Registry struct {
	Host, Endpoint         string
	Mirrors                []string
	CAFile                 string
	InsecureSkipVerify     bool
	Username, PasswordFile string
}

// hosts is the hosts.toml of the registry, as containerd reads it: the mirrors in their order, the registry itself
// (server, with the settings above the first table) last.
func (r Registry) hosts() string {
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
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "server = %q\n%s", server, settings)
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
		dir := filepath.Join(a.c.RegistryConfDir, r.Host)
		file := filepath.Join(dir, "hosts.toml")
		data := r.hosts()
		if old, err := os.ReadFile(file); err == nil && string(old) == data {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("registry %s: %w", r.Host, err)
		}
		tmp := file + ".new"
		if err := os.WriteFile(tmp, []byte(data), 0o644); err != nil {
			return fmt.Errorf("registry %s: %w", r.Host, err)
		}
		if err := os.Rename(tmp, file); err != nil {
			return fmt.Errorf("registry %s: %w", r.Host, err)
		}
	}
	return nil
}
