package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// Named is an image that was imported.
type Named struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // of its manifest or index
	// ID is the digest of the configuration that this machine uses, by which a runtime knows the image.
	ID string `json:"id,omitempty"`
}

// Import puts the images of an archive into the store. Names, if there are any, are given to its only image instead of those in the archive.
// An image has its name only when all of it that this machine needs is there: an import that is cut off leaves nothing that pods could
// start, and is done by doing it again.
func Import(ctx context.Context, s Store, r io.Reader, names ...string) (all []Named, err error) {
	ctx, release, err := s.Lease(ctx, "shoal-import-"+rand.Text())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	i := &importer{store: s, files: map[string]image.Descriptor{}, links: map[string]string{}}
	if err := i.read(ctx, r); err != nil {
		return nil, err
	}
	found, err := i.images(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		if len(found) != 1 {
			return nil, fmt.Errorf("the archive has %d images, so they keep their names", len(found))
		}
		found[0].names = names
	}
	for _, img := range found {
		if len(img.names) == 0 {
			return all, fmt.Errorf("image %s has no name in the archive: give it one", img.Digest)
		}
		id, err := label(ctx, s, img.child)
		if err != nil {
			return all, fmt.Errorf("image %s is not complete: %w", img.names[0], err)
		}
		for _, name := range img.names {
			if err := s.Name(ctx, image.Familiar(name), img.Descriptor); err != nil {
				return all, err
			}
			all = append(all, Named{image.Familiar(name), img.Digest, id})
		}
	}
	return all, nil
}

// packed is an image of an archive.
type packed struct {
	child
	names []string
}

type importer struct {
	store Store
	// index and manifest are the files that say what is in an archive: OCI's and Docker's.
	index, manifest []byte
	files           map[string]image.Descriptor // of an older archive
	links           map[string]string
}

var blobName = regexp.MustCompile(`^blobs/sha256/([0-9a-f]{64})$`)

// read stores the blobs of the archive.
func (i *importer) read(ctx context.Context, r io.Reader) error {
	plain, err := inflate(r)
	if err != nil {
		return err
	}
	archive := tar.NewReader(plain)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is no whole tar: %w", err)
		}
		switch err := i.entry(ctx, h, archive); {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("it is no whole tar: it ends within %s: %w", h.Name, err)
		case err != nil:
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func (i *importer) entry(ctx context.Context, h *tar.Header, r io.Reader) (err error) {
	name := path.Clean(h.Name)
	switch h.Typeflag {
	case tar.TypeSymlink:
		i.links[name] = path.Join(path.Dir(name), h.Linkname)
		return nil
	case tar.TypeReg:
	default:
		return nil
	}
	switch {
	case name == "index.json":
		i.index, err = small(r)
	case name == "manifest.json":
		i.manifest, err = small(r)
	case blobName.MatchString(name):
		d := image.Descriptor{Digest: "sha256:" + blobName.FindStringSubmatch(name)[1], Size: h.Size}
		i.files[name], err = i.store.Write(ctx, d, nil, r)
	case strings.HasSuffix(name, ".json"), strings.HasSuffix(name, ".tar"):
		i.files[name], err = i.store.Write(ctx, image.Descriptor{}, nil, r)
	}
	return err
}

func small(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if len(data) > maxManifest {
		return nil, fmt.Errorf("it is larger than %d bytes", maxManifest)
	}
	return data, err
}

// inflate unpacks what is compressed as a whole.
func inflate(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	magic, err := buffered.Peek(4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, errors.New("it is compressed by zstd: unpack it first (zstd -d)")
	}
	return buffered, nil
}

// images are those that the archive says it has.
func (i *importer) images(ctx context.Context) ([]packed, error) {
	switch {
	case i.index != nil:
		return fromIndex(i.index)
	case i.manifest != nil:
		return i.fromDocker(ctx)
	}
	return nil, errors.New("it is no archive of images: it has neither an index.json (OCI) nor a manifest.json (docker save)")
}

// fromIndex reads OCI's index.json. An image with several names is in it several times.
func fromIndex(data []byte) ([]packed, error) {
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	all := make([]packed, 0, len(doc.Manifests))
	for _, c := range doc.Manifests {
		n := packed{child: c}
		name := c.Annotations["io.containerd.image.name"]
		if ref := c.Annotations["org.opencontainers.image.ref.name"]; name == "" && strings.ContainsAny(ref, "/:") {
			name = ref // as skopeo and podman write it; others write the tag alone
		}
		if name != "" {
			n.names = []string{name}
		}
		n.Annotations = nil
		all = append(all, n)
	}
	return all, nil
}

// fromDocker makes manifests for the images of an older archive, which has none.
func (i *importer) fromDocker(ctx context.Context) ([]packed, error) {
	var entries []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(i.manifest, &entries); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	var all []packed
	for _, e := range entries {
		config, err := i.file(e.Config, image.TypeConfig)
		if err != nil {
			return nil, err
		}
		manifest := struct {
			SchemaVersion int                `json:"schemaVersion"`
			MediaType     string             `json:"mediaType"`
			Config        image.Descriptor   `json:"config"`
			Layers        []image.Descriptor `json:"layers"`
		}{2, image.TypeManifest, config, nil}
		for _, l := range e.Layers {
			layer, err := i.file(l, image.TypeLayer)
			if err != nil {
				return nil, err
			}
			manifest.Layers = append(manifest.Layers, layer)
		}
		data, err := json.Marshal(manifest)
		if err != nil {
			return nil, err
		}
		d, err := i.store.Write(ctx, image.Descriptor{}, nil, bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		d.MediaType = image.TypeManifest
		all = append(all, packed{child: child{Descriptor: d}, names: e.RepoTags})
	}
	return all, nil
}

// file is a blob of an older archive, whose layers may be links to others.
func (i *importer) file(name, mediaType string) (image.Descriptor, error) {
	name = path.Clean(name)
	if to, ok := i.links[name]; ok {
		name = to
	}
	d, ok := i.files[name]
	if !ok {
		return d, fmt.Errorf("the archive has no %s, which its manifest.json names: %w", name, runtime.ErrNotFound)
	}
	d.MediaType = mediaType
	return d, nil
}

// label tells the store's garbage collector which blobs an image needs, and checks that they are there.
func label(ctx context.Context, s Store, c child) (id string, err error) {
	err = walk(ctx, s, c, func(c child, doc *document) error {
		if doc == nil {
			return nil
		}
		labels := map[string]string{}
		if doc.Config != nil {
			labels["containerd.io/gc.ref.content.config"] = doc.Config.Digest
			if id == "" && !c.foreign() {
				id = doc.Config.Digest
			}
		}
		for n, l := range doc.Layers {
			labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", n)] = l.Digest
		}
		for n, m := range doc.Manifests {
			labels[fmt.Sprintf("containerd.io/gc.ref.content.m.%d", n)] = m.Digest
		}
		return s.Label(ctx, c.Digest, labels)
	})
	return id, err
}
