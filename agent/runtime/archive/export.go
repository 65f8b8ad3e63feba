package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// Export writes the images of those names as an OCI image layout in a tar. Of an image for several kinds of machines it has what this
// store has. Each blob is in it once.
func Export(ctx context.Context, s Store, w io.Writer, names ...string) ([]Named, error) {
	known, err := s.Images(ctx)
	if err != nil {
		return nil, err
	}
	e := &exporter{store: s, tar: tar.NewWriter(w), done: map[string]bool{}}
	if err := e.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return nil, err
	}
	var all []Named
	var manifests []image.Descriptor
	for _, name := range names {
		name = image.Familiar(name)
		d, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("image %s is not on this device: %w", name, runtime.ErrNotFound)
		}
		if err := walk(ctx, s, child{Descriptor: d}, func(c child, _ *document) error { return e.blob(ctx, c) }); err != nil {
			return nil, fmt.Errorf("image %s is not complete on this device: %w", name, err)
		}
		d.Annotations = map[string]string{
			"io.containerd.image.name":          name,
			"org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:],
		}
		manifests = append(manifests, d)
		all = append(all, Named{Name: name, Digest: d.Digest})
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": image.TypeIndex, "manifests": manifests})
	if err != nil {
		return nil, err
	}
	if err := e.file("index.json", index); err != nil {
		return nil, err
	}
	return all, e.tar.Close()
}

type exporter struct {
	store Store
	tar   *tar.Writer
	done  map[string]bool
}

func (e *exporter) header(name string, size int64) error {
	return e.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}

func (e *exporter) file(name string, data []byte) error {
	if err := e.header(name, int64(len(data))); err != nil {
		return err
	}
	_, err := e.tar.Write(data)
	return err
}

func (e *exporter) blob(ctx context.Context, c child) error {
	if e.done[c.Digest] {
		return nil
	}
	e.done[c.Digest] = true
	size, err := e.store.Size(ctx, c.Digest)
	if err != nil {
		return err
	}
	if err := e.header("blobs/"+strings.Replace(c.Digest, ":", "/", 1), size); err != nil {
		return err
	}
	return e.store.Copy(ctx, e.tar, c.Digest, 0)
}
