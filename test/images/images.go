// Package images builds container images for the demo and the tests from static binaries and files of this machine: an OCI image
// layout in a folder, with no daemon and no network.
package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Build makes dir an OCI image layout with hello:VERSION for each of the versions and, where Debian's busybox is installed, busybox:1.
func Build(ctx context.Context, root, dir string, versions ...string) error {
	scratch, err := os.MkdirTemp("", "images-*")
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	var all []Image
	for _, version := range versions {
		binary := filepath.Join(scratch, "hello-"+version)
		if err := compile(ctx, root, binary, version); err != nil {
			return err
		}
		all = append(all, Image{
			Name:   "hello:" + version,
			Layers: []*Layer{{Files: []File{{Path: "hello", Source: binary}}}},
			Config: v1.Config{
				Entrypoint:   []string{"/hello"},
				Env:          []string{"PATH=/", "HELLO_VERSION=" + version},
				ExposedPorts: map[string]struct{}{"8080/tcp": {}},
				User:         "65532:65532",
			},
		})
	}
	// Without a shell the demo's images are still whole: what needs one says that its image is missing.
	if _, err := exec.LookPath("busybox"); err == nil {
		layer, err := Busybox(ctx)
		if err != nil {
			return err
		}
		all = append(all, Image{
			Name: "busybox:1", Layers: []*Layer{layer},
			Config: v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
		})
	}
	return Write(dir, all)
}

func compile(ctx context.Context, root, binary, version string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", binary, "./test/images/hello")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("images: build hello %s: %w\n%s", version, err, out)
	}
	return nil
}
