package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/test/scenario"
)

// observability asks every process for its health and its metrics: servers through the API, agents on the device itself.
func observability(t *testing.T, env *scenario.Env) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, d := range env.Lab.Devices() {
		for path, want := range map[string]string{"/livez": "ok", "/readyz": "ok", "/metrics": "process_resident_memory_bytes"} {
			if got, err := onDevice(ctx, env, d, path); err != nil || !strings.Contains(got, want) {
				t.Errorf("%s, agent's %s: %v: %.200s", d.Name, path, err, got)
			}
			if d.Role != dev.Server {
				continue
			}
			got, err := env.Kubectl(ctx, "--kubeconfig", filepath.Join(d.Data, "admin.kubeconfig"), "get", "--raw", path)
			if err != nil || !strings.Contains(got, want) {
				t.Errorf("%s, server's %s: %v: %.200s", d.Name, path, err, got)
			}
		}
	}
}

func onDevice(ctx context.Context, env *scenario.Env, d *dev.Device, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return env.Lab.Dial(ctx, d, network, address)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:10248"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return string(body), err
}
