// Package images builds the container images that the demo and the end-to-end tests run, from our own static binaries: an OCI
// image layout in a folder, with no daemon and no network.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// RefName is the annotation that names an image of a layout.
const RefName = "org.opencontainers.image.ref.name"

// Build makes dir an OCI image layout with hello:VERSION for each of the versions, for this machine's architecture. A
// layout that is there already is replaced as a whole.
func Build(ctx context.Context, root, dir string, versions ...string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "images-*")
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	fresh := filepath.Join(scratch, "layout")
	index, err := layout.Write(fresh, empty.Index)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	for _, version := range versions {
		binary := filepath.Join(scratch, "hello-"+version)
		if err := compile(ctx, root, binary, version); err != nil {
			return err
		}
		image, err := assemble(binary, version)
		if err != nil {
			return fmt.Errorf("images: hello:%s: %w", version, err)
		}
		if err := index.AppendImage(image, layout.WithAnnotations(map[string]string{RefName: "hello:" + version})); err != nil {
			return fmt.Errorf("images: hello:%s: %w", version, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	return os.Rename(fresh, dir)
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

// assemble makes an image of one layer with one file. Nothing in it depends on the clock, so equal binaries give equal digests.
func assemble(binary, version string) (v1.Image, error) {
	content, err := layerOf(binary)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	image, err = mutate.AppendLayers(image, layer)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = v1.Config{
		Entrypoint:   []string{"/hello"},
		Env:          []string{"PATH=/", "HELLO_VERSION=" + version},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		User:         "65532:65532",
	}
	return mutate.ConfigFile(image, file)
}

func layerOf(binary string) (_ []byte, err error) {
	f, err := os.Open(binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	header := &tar.Header{Name: "hello", Mode: 0o755, Size: info.Size(), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, f); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}
