package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// Check reads an archive to its end, and reports what Import would say of it on this kind of machine.
func Check(ctx context.Context, r io.Reader) error {
	if _, err := Import(ctx, &survey{sizes: map[string]int64{}, documents: map[string][]byte{}}, r); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r) // what follows the end of the tar
	return err
}

// survey is a Store that keeps of large blobs only that they were there.
type survey struct {
	sizes     map[string]int64
	documents map[string][]byte
}

func (s *survey) Lease(ctx context.Context, _ string) (context.Context, func() error, error) {
	return ctx, func() error { return nil }, nil
}

func (s *survey) Write(_ context.Context, d image.Descriptor, _ map[string]string, r io.Reader) (image.Descriptor, error) {
	sum := sha256.New()
	var head bytes.Buffer
	n, err := io.Copy(io.MultiWriter(sum, &first{w: &head, left: maxManifest}), r)
	if err != nil {
		return d, err
	}
	digest := fmt.Sprintf("sha256:%x", sum.Sum(nil))
	if d.Digest != "" && d.Digest != digest {
		return d, fmt.Errorf("it is damaged: its digest is %s", digest)
	}
	d.Digest, d.Size = digest, n
	s.sizes[digest] = n
	if n <= maxManifest && bytes.HasPrefix(bytes.TrimSpace(head.Bytes()), []byte("{")) {
		s.documents[digest] = head.Bytes()
	}
	return d, nil
}

func (s *survey) Copy(_ context.Context, w io.Writer, digest string, _ int64) error {
	data, ok := s.documents[digest]
	if !ok {
		return fmt.Errorf("blob %s: %w", digest, runtime.ErrNotFound)
	}
	_, err := w.Write(data)
	return err
}

func (s *survey) Size(_ context.Context, digest string) (int64, error) {
	size, ok := s.sizes[digest]
	if !ok {
		return 0, fmt.Errorf("blob %s: %w", digest, runtime.ErrNotFound)
	}
	return size, nil
}

func (s *survey) Label(context.Context, string, map[string]string) error { return nil }

func (s *survey) Images(context.Context) (map[string]image.Descriptor, error) { return nil, nil }

func (s *survey) Name(context.Context, string, image.Descriptor) error { return nil }

// first is a writer that keeps so much and drops the rest.
type first struct {
	w    io.Writer
	left int
}

func (f *first) Write(p []byte) (int, error) {
	keep := p[:min(len(p), f.left)]
	f.left -= len(keep)
	if _, err := f.w.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Verify reads all of the images of those names, or of all images, and compares it with the digests: size is how much it was, in
// bytes. The error names the image and what of it is damaged.
func Verify(ctx context.Context, s Store, names ...string) (all []Named, size int64, err error) {
	known, err := s.Images(ctx)
	if err != nil {
		return nil, 0, err
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(known))
	}
	done := map[string]bool{}
	for _, name := range names {
		d, ok := known[name]
		if !ok {
			name = image.Familiar(name)
			if d, ok = known[name]; !ok {
				return all, size, fmt.Errorf("image %s is not on this device: %w", name, runtime.ErrNotFound)
			}
		}
		err := walk(ctx, s, child{Descriptor: d}, func(c child, _ *document) error {
			if done[c.Digest] {
				return nil
			}
			done[c.Digest] = true
			n, err := verify(ctx, s, c.Digest)
			size += n
			return err
		})
		if err != nil {
			return all, size, fmt.Errorf("image %s: %w", name, err)
		}
		all = append(all, Named{Name: name, Digest: d.Digest})
	}
	return all, size, nil
}

func verify(ctx context.Context, s Store, digest string) (int64, error) {
	sum := sha256.New()
	if err := s.Copy(ctx, sum, digest, 0); err != nil {
		return 0, err
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != digest {
		return 0, fmt.Errorf("blob %s is damaged: its digest is %s", digest, got)
	}
	return s.Size(ctx, digest)
}
