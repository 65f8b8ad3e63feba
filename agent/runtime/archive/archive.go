// Package archive owns images in files: OCI image layouts in a tar, as shoal, containerd, podman and Docker since 25 write them, and
// the older archives of `docker save`. Nothing is unpacked to a disk on the way: blobs go from the file to the store and back.
package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// Media types of Docker's, which mean the same as those of OCI.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// maxManifest bounds manifests and indexes; registries refuse larger ones.
const maxManifest = 4 << 20

// Store is where images are; content.Store is one.
type Store interface {
	Lease(ctx context.Context, id string) (leased context.Context, release func() error, err error)
	Write(ctx context.Context, d image.Descriptor, labels map[string]string, r io.Reader) (image.Descriptor, error)
	Copy(ctx context.Context, w io.Writer, digest string, offset int64) error
	Size(ctx context.Context, digest string) (int64, error)
	Label(ctx context.Context, digest string, labels map[string]string) error
	Images(ctx context.Context) (map[string]image.Descriptor, error)
	Name(ctx context.Context, name string, d image.Descriptor) error
}

// platform is for what a manifest of an index is.
type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// child is a blob that a manifest or an index names.
type child struct {
	image.Descriptor
	Platform *platform `json:"platform,omitempty"`
}

// document is a manifest or an index.
type document struct {
	MediaType string  `json:"mediaType"`
	Config    *child  `json:"config,omitempty"`
	Layers    []child `json:"layers,omitempty"`
	Manifests []child `json:"manifests,omitempty"`
}

func isIndex(mediaType string) bool { return mediaType == image.TypeIndex || mediaType == dockerList }

func isManifest(mediaType string) bool {
	return mediaType == image.TypeManifest || mediaType == dockerManifest
}

// foreign reports whether a manifest of an index is for other machines, or no image at all.
func (c child) foreign() bool {
	return c.Platform != nil && (c.Platform.OS != "linux" || c.Platform.Architecture != goruntime.GOARCH)
}

// visit is called for each blob of an image, what names it before what it names.
type visit func(c child, doc *document) error

// walk goes through the blobs of an image that this machine needs. What an index has for other machines is visited too where it is
// there. A blob that is missing is an error that names it.
func walk(ctx context.Context, s Store, c child, f visit) error {
	if !isIndex(c.MediaType) && !isManifest(c.MediaType) {
		if _, err := s.Size(ctx, c.Digest); err != nil {
			return err
		}
		return f(c, nil)
	}
	doc, err := read(ctx, s, c.Digest)
	if err != nil {
		return err
	}
	if err := f(c, doc); err != nil {
		return err
	}
	if isManifest(c.MediaType) {
		children := doc.Layers
		if doc.Config != nil {
			children = append([]child{*doc.Config}, children...)
		}
		for _, blob := range children {
			if err := walk(ctx, s, blob, f); err != nil {
				return err
			}
		}
		return nil
	}
	found := false
	for _, m := range doc.Manifests {
		switch err := walk(ctx, s, m, f); {
		case err == nil:
			found = found || !m.foreign()
		case !m.foreign() || !errors.Is(err, runtime.ErrNotFound):
			return err
		}
	}
	if !found {
		return fmt.Errorf("it has nothing for linux/%s: %w", goruntime.GOARCH, runtime.ErrNotFound)
	}
	return nil
}

func read(ctx context.Context, s Store, digest string) (*document, error) {
	var b bytes.Buffer
	if err := s.Copy(ctx, &limited{w: &b, left: maxManifest}, digest, 0); err != nil {
		return nil, err
	}
	doc := &document{}
	if err := json.Unmarshal(b.Bytes(), doc); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", digest, err)
	}
	return doc, nil
}

// limited is a writer that takes so much and no more.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("a manifest is larger than %d bytes", maxManifest)
	}
	return l.w.Write(p)
}
