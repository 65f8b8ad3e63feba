package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/archive"
	"github.com/shoal-edge/shoal/agent/runtime/content"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// Content is the runtime's content and image stores.
func (r *Runtime) Content() *content.Store { return r.content }

// Import puts an image made on this device into containerd, and returns when pods can use it.
func (r *Runtime) Import(ctx context.Context, img image.Image) error {
	store := r.Content()
	leased, release, err := store.Lease(ctx, "shoal-import-"+img.Manifest.Digest)
	if err != nil {
		return fmt.Errorf("import image %s: %w", img.Ref, err)
	}
	for i, b := range img.Blobs {
		var labels map[string]string
		if i == len(img.Blobs)-1 {
			labels = references(img.Blobs[:i])
		}
		if _, err := store.Write(leased, b.Descriptor, labels, bytes.NewReader(b.Data)); err != nil {
			return fmt.Errorf("import image %s: %w", img.Ref, err)
		}
	}
	if err := errors.Join(store.Name(leased, img.Ref, img.Manifest), release()); err != nil {
		return fmt.Errorf("import image %s: %w", img.Ref, err)
	}
	return r.awaitImage(ctx, img.Ref, img.ID())
}

// ImportArchive puts the images of an archive into containerd, and returns when pods can use them; see archive.Import.
func (r *Runtime) ImportArchive(ctx context.Context, file io.Reader, names ...string) ([]archive.Named, error) {
	all, err := archive.Import(ctx, r.Content(), file, names...)
	if err != nil {
		return all, err
	}
	for _, img := range all {
		if err := r.awaitImage(ctx, img.Name, img.ID); err != nil {
			return all, err
		}
	}
	return all, nil
}

// awaitImage waits until the CRI plugin, which hears of images by events, knows the image.
func (r *Runtime) awaitImage(ctx context.Context, ref, id string) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		found, err := r.Image(ctx, ref)
		if err == nil && found.ID == id {
			return nil
		}
		if err != nil && !errors.Is(err, runtime.ErrNotFound) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("import image %s: %w", ref, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// references are the labels by which containerd's garbage collector gets from a manifest to its blobs.
func references(blobs []image.Blob) map[string]string {
	labels := map[string]string{}
	for i, b := range blobs {
		name := fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)
		if b.MediaType == image.TypeConfig {
			name = "containerd.io/gc.ref.content.config"
		}
		labels[name] = b.Digest
	}
	return labels
}
