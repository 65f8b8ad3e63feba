package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	content "github.com/containerd/containerd/api/services/content/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	leases "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

const chunk = 1 << 20

// Import puts an image made on this device into containerd, and returns when pods can use it.
func (r *Runtime) Import(ctx context.Context, img image.Image) error {
	raw := inNamespace(ctx)
	// Until the image names them, the blobs belong to nothing: the lease keeps the garbage collector off.
	lease, err := leases.NewLeasesClient(r.conn).Create(raw, &leases.CreateRequest{
		ID:     "shoal-import-" + img.Manifest.Digest,
		Labels: map[string]string{"containerd.io/gc.expire": time.Now().Add(time.Hour).Format(time.RFC3339)},
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return r.failed("import image", err)
	}
	id := "shoal-import-" + img.Manifest.Digest
	if lease != nil {
		id = lease.Lease.ID
	}
	leased := metadata.AppendToOutgoingContext(raw, "containerd-lease", id)
	for i, b := range img.Blobs {
		var labels map[string]string
		if i == len(img.Blobs)-1 {
			labels = references(img.Blobs[:i])
		}
		if err := r.writeBlob(leased, b, labels); err != nil {
			return fmt.Errorf("import image %s: %w", img.Ref, err)
		}
	}
	target := &types.Descriptor{MediaType: img.Manifest.MediaType, Digest: img.Manifest.Digest, Size: img.Manifest.Size}
	record := &images.Image{Name: img.Ref, Target: target, Labels: map[string]string{"io.cri-containerd.image": "managed"}}
	client := images.NewImagesClient(r.conn)
	_, err = client.Create(leased, &images.CreateImageRequest{Image: record})
	if status.Code(err) == codes.AlreadyExists {
		_, err = client.Update(leased, &images.UpdateImageRequest{Image: record})
	}
	if err != nil {
		return r.failed("import image "+img.Ref, err)
	}
	if _, err := leases.NewLeasesClient(r.conn).Delete(raw, &leases.DeleteRequest{ID: id}); err != nil && status.Code(err) != codes.NotFound {
		return r.failed("import image "+img.Ref, err)
	}
	return r.awaitImage(ctx, img)
}

// awaitImage waits until the CRI plugin, which hears of images by events, knows the image.
func (r *Runtime) awaitImage(ctx context.Context, img image.Image) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		found, err := r.Image(ctx, img.Ref)
		if err == nil && found.ID == img.ID() {
			return nil
		}
		if err != nil && !errors.Is(err, runtime.ErrNotFound) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("import image %s: %w", img.Ref, ctx.Err())
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

func (r *Runtime) writeBlob(ctx context.Context, b image.Blob, labels map[string]string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := content.NewContentClient(r.conn).Write(ctx)
	if err != nil {
		return r.failed("write blob", err)
	}
	for offset := 0; ; offset += chunk {
		data := b.Data[min(offset, len(b.Data)):min(offset+chunk, len(b.Data))]
		q := &content.WriteContentRequest{
			Action: content.WriteAction_WRITE, Ref: "shoal-" + b.Digest, Total: b.Size, Expected: b.Digest, Offset: int64(offset), Data: data,
		}
		last := offset+chunk >= len(b.Data)
		if last {
			q.Action, q.Labels = content.WriteAction_COMMIT, labels
		}
		if err := stream.Send(q); err != nil && !errors.Is(err, io.EOF) { // on EOF, Recv has the reason
			return r.failed("write blob", err)
		}
		switch _, err := stream.Recv(); {
		case status.Code(err) == codes.AlreadyExists:
			return nil
		case err != nil:
			return r.failed("write blob", err)
		}
		if last {
			return nil
		}
	}
}
