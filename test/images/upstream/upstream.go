// Package upstream owns the images that the upstream end-to-end suite asks for, under their exact names: agnhost built from its Go
// module, busybox and nginx from Debian's packages, and what is made of them.
package upstream

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/shoal-edge/shoal/test/images"
)

// The names are those of test/utils/image/manifest.go of the pinned version.
const registry = "registry.k8s.io/e2e-test-images/"

// Sources says what the images are made from.
type Sources struct {
	// Binaries is the folder with those that were built, agnhost and nnp; Kubernetes that of the module k8s.io/kubernetes.
	Binaries, Kubernetes string
}

// Images lists them.
func Images(ctx context.Context, s Sources) ([]images.Image, error) {
	busybox, err := images.Busybox(ctx)
	if err != nil {
		return nil, err
	}
	nginx, err := nginxLayer(ctx)
	if err != nil {
		return nil, err
	}
	shell, err := shellLayer()
	if err != nil {
		return nil, err
	}
	nnp := &images.Layer{Files: []images.File{{Path: "usr/local/bin/nnp", Source: filepath.Join(s.Binaries, "nnp"), Mode: 0o6755}}}
	base := []*images.Layer{busybox, agnhostLayer(s)}
	path := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	web := v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, Env: path, ExposedPorts: map[string]struct{}{"80/tcp": {}}}
	list := []images.Image{
		{Name: registry + "agnhost:2.66.1", Layers: base, Config: agnhostConfig(path, "pause")},
		{Name: registry + "agnhost:2.55", Layers: base, Config: agnhostConfig(path, "pause")},
		{Name: registry + "busybox:1.37.0-2", Layers: []*images.Layer{busybox, shell}, Config: v1.Config{Cmd: []string{"sh"}, Env: path}},
		{Name: registry + "nonewprivs:1.4", Layers: []*images.Layer{busybox, nnp}, Config: v1.Config{Cmd: []string{"nnp"}, Env: path}},
		{Name: registry + "nginx:1.27.0-2", Layers: []*images.Layer{busybox, nginx}, Config: web},
		{Name: registry + "nginx:1.28.0-2", Layers: []*images.Layer{busybox, nginx}, Config: web},
		{Name: "registry.k8s.io/pause:3.10.2", Layers: []*images.Layer{pauseLayer()}, Config: v1.Config{
			Entrypoint: []string{"/pause", "-P"}, Env: path, User: "65535:65535",
		}},
		{Name: registry + "nonroot:1.5", Layers: base, Config: func() v1.Config {
			c := agnhostConfig(path, "pause")
			c.User = "1234"
			return c
		}()},
	}
	for _, animal := range []string{"nautilus", "kitten"} {
		html := filepath.Join(s.Kubernetes, "test", "images", animal, "html")
		pictures := &images.Layer{Files: []images.File{
			{Path: animal + ".jpg", Source: filepath.Join(html, animal+".jpg"), Mode: 0o644},
			{Path: "data.json", Source: filepath.Join(html, "data.json"), Mode: 0o644},
		}}
		list = append(list, images.Image{
			Name: registry + animal + ":1.8", Layers: append(base[:2:2], pictures), Config: agnhostConfig(path, "test-webserver"),
		})
	}
	return list, nil
}

func agnhostConfig(env []string, command string) v1.Config {
	return v1.Config{
		Entrypoint: []string{"/agnhost"}, Cmd: []string{command}, Env: env,
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "8080/tcp": {}, "8081/tcp": {}, "9376/tcp": {}, "5000/tcp": {}},
	}
}

func agnhostLayer(s Sources) *images.Layer {
	porter := filepath.Join(s.Kubernetes, "test", "images", "agnhost", "porter")
	return &images.Layer{Files: []images.File{
		{Path: "agnhost", Source: filepath.Join(s.Binaries, "agnhost")},
		{Path: "agnhost-2", Link: "agnhost"},
		{Path: "localhost.crt", Source: filepath.Join(porter, "localhost.crt"), Mode: 0o644},
		{Path: "localhost.key", Source: filepath.Join(porter, "localhost.key"), Mode: 0o644},
		{Path: "uploads", Dir: true},
		// Upstream's image has curl, of which the suite only wants that it fetches a URL.
		{Path: "usr/bin/curl", Content: "#!/bin/sh\nexec wget -q -O - \"$1\"\n"},
	}}
}

// shellLayer is Debian's bash in the place of busybox's shell. Upstream's busybox hands on variables whose names no shell can use, such as
// data-1, and so does bash; Debian's busybox drops them, and it would seem that the agent had.
func shellLayer() (*images.Layer, error) {
	bash, err := exec.LookPath("bash-static")
	if err != nil {
		return nil, fmt.Errorf("images: %w: install bash-static", err)
	}
	return &images.Layer{Files: []images.File{{Path: "bin/bash", Source: bash}, {Path: "bin/sh", Link: "bash"}}}, nil
}

func pauseLayer() *images.Layer {
	return &images.Layer{Files: []images.File{{Path: "pause", Source: "/usr/bin/catatonit"}}}
}

const nginxConfig = `worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
  access_log /dev/stdout;
  server { listen 80; root /usr/share/nginx/html; }
}
`

// nginxLayer is Debian's nginx with the libraries that it is linked with, and a page.
func nginxLayer(ctx context.Context) (*images.Layer, error) {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		binary = "/usr/sbin/nginx"
	}
	libraries, err := linked(ctx, binary)
	if err != nil {
		return nil, err
	}
	files := []images.File{
		{Path: "usr/sbin/nginx", Source: binary},
		{Path: "etc/nginx/nginx.conf", Content: nginxConfig, Mode: 0o644},
		{Path: "var/log/nginx", Dir: true},
		{Path: "var/lib/nginx", Dir: true},
		{Path: "usr/share/nginx/html/index.html", Mode: 0o644, Content: "<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n"},
	}
	return &images.Layer{Files: append(files, libraries...)}, nil
}

// linked finds a binary's shared libraries and its loader. Each is stored under the path that the loader looks at.
func linked(ctx context.Context, binary string) ([]images.File, error) {
	out, err := exec.CommandContext(ctx, "ldd", binary).Output()
	if err != nil {
		return nil, fmt.Errorf("images: ldd %s: %w", binary, err)
	}
	var files []images.File
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if !strings.HasPrefix(word, "/") {
				continue
			}
			if _, err := os.Stat(word); err != nil {
				return nil, fmt.Errorf("images: %s: %w", binary, err)
			}
			files = append(files, images.File{Path: strings.TrimPrefix(word, "/"), Source: word})
		}
	}
	return files, nil
}
