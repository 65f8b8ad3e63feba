// Package image owns the making of small OCI images out of files on this machine: the pause image, which must be there
// before any network is, and the images of examples and tests.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Media types of the OCI image specification.
const (
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeConfig   = "application/vnd.oci.image.config.v1+json"
	TypeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// File is one file of an image. Folders above it are made as needed.
type File struct {
	Path    string // absolute, as the container sees it
	Content []byte
	Mode    int64  // default 0755
	Link    string // the target, for a symbolic link
}

// Config describes an image. The same Config always makes the same digests.
type Config struct {
	Ref        string // as pods name it: shoal.dev/pause:1
	Files      []File
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	Arch       string // default: this machine's
	Variant    string // arm only
}

// Descriptor names a blob by what it holds.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Blob is a piece of an image.
type Blob struct {
	Descriptor
	Data []byte
}

// Image is a finished image: blobs, the manifest last.
type Image struct {
	Ref      string
	Blobs    []Blob
	Manifest Descriptor
}

// ID is the image's id: the digest of its config.
func (i Image) ID() string { return i.Blobs[1].Digest }

// Build makes the image in memory.
func Build(c Config) (Image, error) {
	if c.Arch == "" {
		c.Arch = runtime.GOARCH
	}
	layer, err := layer(c.Files)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", c.Ref, err)
	}
	layerBlob := blob(TypeLayer, layer)
	config, err := json.Marshal(map[string]any{
		"architecture": c.Arch,
		"variant":      c.Variant,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": c.Entrypoint, "Cmd": c.Cmd, "Env": c.Env, "User": c.User},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	})
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", c.Ref, err)
	}
	configBlob := blob(TypeConfig, config)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     TypeManifest,
		"config":        configBlob.Descriptor,
		"layers":        []Descriptor{layerBlob.Descriptor},
	})
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", c.Ref, err)
	}
	manifestBlob := blob(TypeManifest, manifest)
	return Image{Ref: c.Ref, Blobs: []Blob{layerBlob, configBlob, manifestBlob}, Manifest: manifestBlob.Descriptor}, nil
}

// WriteTo writes the image as an OCI layout in a tar, which `ctr images import` and other tools read.
func (i Image) WriteTo(w io.Writer) (int64, error) {
	manifest := i.Manifest
	manifest.Annotations = map[string]string{
		"io.containerd.image.name":          i.Ref,
		"org.opencontainers.image.ref.name": i.Ref[strings.LastIndexByte(i.Ref, ':')+1:],
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": []Descriptor{manifest}})
	if err != nil {
		return 0, err
	}
	files := []File{
		{Path: "/oci-layout", Content: []byte(`{"imageLayoutVersion":"1.0.0"}`), Mode: 0o644},
		{Path: "/index.json", Content: index, Mode: 0o644},
	}
	for _, b := range i.Blobs {
		files = append(files, File{Path: "/blobs/" + strings.Replace(b.Digest, ":", "/", 1), Content: b.Data, Mode: 0o644})
	}
	data, err := layer(files)
	if err != nil {
		return 0, err
	}
	n, err := w.Write(data)
	return int64(n), err
}

func blob(mediaType string, data []byte) Blob {
	return Blob{
		Descriptor: Descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), Size: int64(len(data))},
		Data:       data,
	}
}

// layer is a tar of the files and of the folders above them, with no times and no owners in it.
func layer(files []File) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{"/": true}
	var folder func(name string) error
	folder = func(name string) error {
		if made[name] {
			return nil
		}
		if err := folder(path.Dir(name)); err != nil {
			return err
		}
		made[name] = true
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name[1:] + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
	}
	files = slices.Clone(files)
	for _, f := range files {
		name := path.Clean(f.Path)
		if !path.IsAbs(name) || name == "/" {
			return nil, fmt.Errorf("file %q must have an absolute path", f.Path)
		}
		if err := folder(path.Dir(name)); err != nil {
			return nil, err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name[1:], Mode: f.Mode, Size: int64(len(f.Content)), ModTime: time.Unix(0, 0)}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if f.Link == "" {
			if _, err := w.Write(f.Content); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
