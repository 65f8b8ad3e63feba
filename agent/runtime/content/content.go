// Package content owns the talk with containerd's content and image stores, below CRI: blobs by their digest, the leases that keep
// them until an image names them, and the names of images. Digests are checked by containerd as it takes a blob.
package content

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	content "github.com/containerd/containerd/api/services/content/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	leases "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

const (
	// Namespace is the one of containerd's namespaces that CRI uses.
	Namespace = "k8s.io"
	// chunk is how much of a blob one message carries.
	chunk = 1 << 20
	// leaseLife is how long a lease keeps blobs of a process that died before it gave it back.
	leaseLife = time.Hour
)

// Store is a containerd's stores.
type Store struct {
	socket  string
	content content.ContentClient
	images  images.ImagesClient
	leases  leases.LeasesClient
}

// New returns the stores behind a connection to containerd at a socket.
func New(conn grpc.ClientConnInterface, socket string) *Store {
	return &Store{socket: socket, content: content.NewContentClient(conn), images: images.NewImagesClient(conn), leases: leases.NewLeasesClient(conn)}
}

func in(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", Namespace)
}

// Lease keeps what is written with the context that it returns from the garbage collector, until release, or for an hour. What an
// image names by then stays.
func (s *Store) Lease(ctx context.Context, id string) (leased context.Context, release func() error, err error) {
	_, err = s.leases.Create(in(ctx), &leases.CreateRequest{
		ID: id, Labels: map[string]string{"containerd.io/gc.expire": time.Now().Add(leaseLife).Format(time.RFC3339)},
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return nil, nil, s.Failed("lease", err)
	}
	release = func() error {
		ctx := context.WithoutCancel(ctx)
		if _, err := s.leases.Delete(in(ctx), &leases.DeleteRequest{ID: id}); err != nil && status.Code(err) != codes.NotFound {
			return s.Failed("give back a lease", err)
		}
		return nil
	}
	return metadata.AppendToOutgoingContext(ctx, "containerd-lease", id), release, nil
}

// Write stores what r has as the blob d, and returns d with the digest and the size that it turned out to have, where it said none.
// A blob that is there already is left, and r read to its end. What has another digest or size than d says is refused.
func (s *Store) Write(ctx context.Context, d image.Descriptor, labels map[string]string, r io.Reader) (image.Descriptor, error) {
	ctx, cancel := context.WithCancel(in(ctx))
	defer cancel()
	stream, err := s.content.Write(ctx)
	if err != nil {
		return d, s.Failed("write blob", err)
	}
	w := &writer{store: s, stream: stream, ref: "shoal-" + d.Digest, labels: labels}
	sum := sha256.New()
	if d.Digest == "" {
		w.ref = "shoal-unnamed-" + rand.Text()
		r = io.TeeReader(r, sum)
	}
	buffer := make([]byte, chunk)
	for {
		n, err := io.ReadFull(r, buffer)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return d, err
		}
		if last && d.Digest == "" {
			d.Digest, d.Size = fmt.Sprintf("sha256:%x", sum.Sum(nil)), w.offset+int64(n)
		}
		switch there, err := w.send(d, buffer[:n], last); {
		case err != nil:
			return d, err
		case there && !last:
			_, err := io.Copy(io.Discard, r)
			return d, err
		case last:
			return d, nil
		}
	}
}

// writer sends a blob piece by piece.
type writer struct {
	store  *Store
	stream content.Content_WriteClient
	ref    string // under what containerd keeps what it has so far
	labels map[string]string
	offset int64
}

// send sends a piece, and reports whether the whole blob is there already.
func (w *writer) send(d image.Descriptor, data []byte, last bool) (there bool, err error) {
	q := &content.WriteContentRequest{
		Action: content.WriteAction_WRITE, Ref: w.ref, Total: d.Size, Expected: d.Digest, Offset: w.offset, Data: data,
	}
	if last {
		q.Action, q.Labels = content.WriteAction_COMMIT, w.labels
	}
	if err := w.stream.Send(q); err != nil && !errors.Is(err, io.EOF) { // on EOF, Recv has the reason
		return false, w.store.Failed("write blob", err)
	}
	w.offset += int64(len(data))
	_, err = w.stream.Recv()
	if status.Code(err) == codes.AlreadyExists {
		return true, nil
	}
	return false, w.store.Failed("write blob", err)
}

// Size is the size of a blob in bytes; runtime.ErrNotFound when it is not there.
func (s *Store) Size(ctx context.Context, digest string) (int64, error) {
	reply, err := s.content.Info(in(ctx), &content.InfoRequest{Digest: digest})
	if err != nil {
		return 0, s.Failed("blob "+digest, err)
	}
	return reply.Info.Size, nil
}

// Label adds labels to a blob.
func (s *Store) Label(ctx context.Context, digest string, labels map[string]string) error {
	mask := &fieldmaskpb.FieldMask{}
	for name := range labels {
		mask.Paths = append(mask.Paths, "labels."+name)
	}
	_, err := s.content.Update(in(ctx), &content.UpdateRequest{Info: &content.Info{Digest: digest, Labels: labels}, UpdateMask: mask})
	return s.Failed("label blob "+digest, err)
}

// Copy writes the blob to w, from the offset on.
func (s *Store) Copy(ctx context.Context, w io.Writer, digest string, offset int64) error {
	ctx, cancel := context.WithCancel(in(ctx))
	defer cancel()
	stream, err := s.content.Read(ctx, &content.ReadContentRequest{Digest: digest, Offset: offset})
	if err != nil {
		return s.Failed("read blob "+digest, err)
	}
	for {
		piece, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return s.Failed("read blob "+digest, err)
		}
		if _, err := w.Write(piece.Data); err != nil {
			return err
		}
	}
}

// Abort throws away what has been fetched or written of a blob that is not whole yet.
func (s *Store) Abort(ctx context.Context, ref string) error {
	_, err := s.content.Abort(in(ctx), &content.AbortRequest{Ref: ref})
	return s.Failed("throw away "+ref, err)
}

// Images are the names of all images, with the manifests or indexes that they stand for.
func (s *Store) Images(ctx context.Context) (map[string]image.Descriptor, error) {
	reply, err := s.images.List(in(ctx), &images.ListImagesRequest{})
	if err != nil {
		return nil, s.Failed("list images", err)
	}
	all := make(map[string]image.Descriptor, len(reply.Images))
	for _, i := range reply.Images {
		all[i.Name] = image.Descriptor{MediaType: i.Target.GetMediaType(), Digest: i.Target.GetDigest(), Size: i.Target.GetSize()}
	}
	return all, nil
}

// Name gives a manifest or index a name, which may have stood for another one.
func (s *Store) Name(ctx context.Context, name string, d image.Descriptor) error {
	record := &images.Image{
		Name: name, Target: &types.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size},
		Labels: map[string]string{"io.cri-containerd.image": "managed"},
	}
	_, err := s.images.Create(in(ctx), &images.CreateImageRequest{Image: record})
	if status.Code(err) == codes.AlreadyExists {
		_, err = s.images.Update(in(ctx), &images.UpdateImageRequest{Image: record})
	}
	return s.Failed("name image "+name, err)
}

// Failed wraps an error of containerd in the kind the agent knows.
func (s *Store) Failed(what string, err error) error {
	reply := status.Convert(err)
	switch {
	case reply.Code() == codes.OK:
		return nil
	case reply.Code() == codes.NotFound:
		return fmt.Errorf("%s: %s: %w", what, reply.Message(), runtime.ErrNotFound)
	case reply.Code() == codes.Unavailable, strings.Contains(reply.Message(), "server is not initialized yet"):
		return fmt.Errorf("%s: %w at %s: %s", what, runtime.ErrUnavailable, s.socket, reply.Message())
	case reply.Code() == codes.Canceled:
		return fmt.Errorf("%s: %w", what, context.Canceled)
	case reply.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", what, context.DeadlineExceeded)
	case reply.Code() == codes.Unimplemented:
		return fmt.Errorf("%s: %s: %w", what, reply.Message(), runtime.ErrUnsupported)
	}
	return fmt.Errorf("%s: %s", what, reply.Message())
}
