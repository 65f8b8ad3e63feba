package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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

// File is one entry of a layer. Exactly one of Source, Link, Dir and Content says what it is; an empty Content is an empty file.
type File struct {
	// Path is where it is in the image, without a slash in front.
	Path string
	// Source is a file of this machine; Link is what a symbolic link points to; Dir makes a folder.
	Source, Link string
	Dir          bool
	Content      string
	// Mode is its permissions; 0 is 0755.
	Mode int64
}

// Image is one image to assemble.
type Image struct {
	// Name is repository:tag, with the registry's host in front of it unless it is the lab's own.
	Name string
	// Layers are from the lowest up. Equal layers of several images are stored once.
	Layers []*Layer
	Config v1.Config
}

// Layer is a layer that is made once, however many images have it.
type Layer struct {
	Files []File
	made  v1.Layer
}

// Write makes dir an OCI image layout of the images, for this machine's architecture. One that is there is replaced as a whole.
func Write(dir string, images []Image) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "layout-*")
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	fresh := filepath.Join(scratch, "layout")
	index, err := layout.Write(fresh, empty.Index)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	for _, i := range images {
		image, err := assemble(i)
		if err != nil {
			return fmt.Errorf("images: %s: %w", i.Name, err)
		}
		if err := index.AppendImage(image, layout.WithAnnotations(map[string]string{RefName: i.Name})); err != nil {
			return fmt.Errorf("images: %s: %w", i.Name, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	return os.Rename(fresh, dir)
}

// assemble makes an image. Nothing in it depends on the clock, so equal files give equal digests.
func assemble(i Image) (v1.Image, error) {
	image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	for _, l := range i.Layers {
		layer, err := l.make()
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, i.Config
	return mutate.ConfigFile(image, file)
}

func (l *Layer) make() (v1.Layer, error) {
	if l.made != nil {
		return l.made, nil
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range l.Files {
		if err := f.write(w); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	made, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	l.made = made
	return made, err
}

func (f File) write(w *tar.Writer) (err error) {
	header := &tar.Header{Name: f.Path, Mode: f.Mode, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: int64(len(f.Content))}
	if f.Mode == 0 {
		header.Mode = int64(fs.FileMode(0o755))
	}
	switch {
	case f.Dir:
		header.Typeflag = tar.TypeDir
		return w.WriteHeader(header)
	case f.Link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.Link
		return w.WriteHeader(header)
	case f.Source == "":
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.WriteString(w, f.Content)
		return err
	}
	source, err := os.Open(f.Source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w, source)
	return err
}
