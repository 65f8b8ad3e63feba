package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// ensureImage returns the container's image, fetched as its policy says.
func (a *Agent) ensureImage(ctx context.Context, p *corev1.Pod, c *corev1.Container, s *criapi.PodSandboxConfig) (runtime.Image, error) {
	policy := c.ImagePullPolicy
	if policy == "" {
		policy = corev1.PullIfNotPresent
	}
	if policy != corev1.PullAlways {
		img, err := a.c.Runtime.Image(ctx, c.Image)
		if err == nil {
			a.event(p, c.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
			return img, nil
		}
		if !errors.Is(err, runtime.ErrNotFound) {
			return img, err
		}
		if policy == corev1.PullNever {
			return img, &problem{reasonNeverPull, fmt.Errorf("Container image %q is not present with pull policy of Never", c.Image)} //nolint:staticcheck // kubelet's words
		}
	}
	release, err := acquire(ctx, a.pulls)
	if err != nil {
		return runtime.Image{}, err
	}
	defer release()
	begin := time.Now()
	a.event(p, c.Name, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	if _, err := a.c.Runtime.Pull(ctx, c.Image, a.credentials(p, c.Image), s); err != nil {
		return runtime.Image{}, &problem{reasonPull, fmt.Errorf("failed to pull image %q: %w", c.Image, err)}
	}
	a.event(p, c.Name, corev1.EventTypeNormal, "Pulled",
		fmt.Sprintf("Successfully pulled image %q in %s", c.Image, time.Since(begin).Round(time.Millisecond)))
	a.metrics.pulls.Inc()
	return a.c.Runtime.Image(ctx, c.Image)
}

// credentials are those for the image's registry among the pod's pull secrets; nil: none.
func (a *Agent) credentials(p *corev1.Pod, image string) *criapi.AuthConfig {
	host, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host = "docker.io"
	}
	for _, ref := range p.Spec.ImagePullSecrets {
		s := a.Secret(p.Namespace, ref.Name)
		if s == nil {
			continue
		}
		var file struct {
			Auths map[string]struct{ Username, Password, Auth string }
		}
		data := s.Data[corev1.DockerConfigJsonKey]
		if data == nil {
			continue
		}
		if err := json.Unmarshal(data, &file); err != nil {
			continue // the registry's refusal says more than this would
		}
		for server, auth := range file.Auths {
			name := strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
			name, _, _ = strings.Cut(name, "/")
			if name != host && (host != "docker.io" || name != "index.docker.io") {
				continue
			}
			if user, password, ok := decode(auth.Auth); ok && auth.Username == "" {
				auth.Username, auth.Password = user, password
			}
			return &criapi.AuthConfig{Username: auth.Username, Password: auth.Password}
		}
	}
	return nil
}

func decode(auth string) (user, password string, ok bool) {
	data, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(data), ":")
}

// writeRegistries tells containerd where to ask for the images of a registry.
func (a *Agent) writeRegistries() error {
	if a.c.RegistryConfDir == "" {
		return nil
	}
	for _, r := range a.c.Registries {
		dir := filepath.Join(a.c.RegistryConfDir, r.Host)
		file := filepath.Join(dir, "hosts.toml")
		data := fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", r.Endpoint, r.Endpoint)
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
