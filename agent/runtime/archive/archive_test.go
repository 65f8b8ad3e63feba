package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// memory is a Store that keeps what is named, and its lease what is not.
type memory struct {
	blobs  map[string][]byte
	labels map[string]map[string]string
	names  map[string]image.Descriptor
	leases int
}

func newMemory() *memory {
	return &memory{blobs: map[string][]byte{}, labels: map[string]map[string]string{}, names: map[string]image.Descriptor{}}
}

func (m *memory) Lease(ctx context.Context, _ string) (context.Context, func() error, error) {
	m.leases++
	return ctx, func() error { m.leases--; return nil }, nil
}

func (m *memory) Write(_ context.Context, d image.Descriptor, _ map[string]string, r io.Reader) (image.Descriptor, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return d, err
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	if d.Digest != "" && d.Digest != digest {
		return d, errors.New("unexpected digest")
	}
	m.blobs[digest] = data
	d.Digest, d.Size = digest, int64(len(data))
	return d, nil
}

func (m *memory) Copy(_ context.Context, w io.Writer, digest string, offset int64) error {
	data, ok := m.blobs[digest]
	if !ok {
		return runtime.ErrNotFound
	}
	_, err := w.Write(data[offset:])
	return err
}

func (m *memory) Size(_ context.Context, digest string) (int64, error) {
	data, ok := m.blobs[digest]
	if !ok {
		return 0, fmt.Errorf("blob %s: %w", digest, runtime.ErrNotFound)
	}
	return int64(len(data)), nil
}

func (m *memory) Label(_ context.Context, digest string, labels map[string]string) error {
	m.labels[digest] = labels
	return nil
}

func (m *memory) Images(context.Context) (map[string]image.Descriptor, error) { return m.names, nil }

func (m *memory) Name(_ context.Context, name string, d image.Descriptor) error {
	m.names[name] = d
	return nil
}

func build(t *testing.T, ref, content string) (image.Image, []byte) {
	t.Helper()
	img, err := image.Build(image.Config{Ref: ref, Files: []image.File{{Path: "/x", Content: []byte(content)}}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := img.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return img, b.Bytes()
}

// pack is a tar of the files, in the order of their names.
func pack(t *testing.T, files [][2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f[0], Size: int64(len(f[1])), Mode: 0o644}
		data := f[1]
		if to, ok := strings.CutPrefix(data, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, data = tar.TypeSymlink, to, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRoundTrip takes images from one store to another and back, packed and not.
func TestRoundTrip(t *testing.T) {
	ctx := t.Context()
	one, first := build(t, "factory.example/press:1", "press")
	_, second := build(t, "busybox", "box")
	s := newMemory()
	if got, err := Import(ctx, s, bytes.NewReader(first)); err != nil || got[0] != (Named{"factory.example/press:1", one.Manifest.Digest, one.ID()}) {
		t.Fatalf("got %v, %v", got, err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(second); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	if _, err := Import(ctx, s, &packed); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"containerd.io/gc.ref.content.config": one.Blobs[1].Digest, "containerd.io/gc.ref.content.l.0": one.Blobs[0].Digest,
	}
	if diff := cmp.Diff(want, s.labels[one.Manifest.Digest]); diff != "" {
		t.Errorf("labels: %s", diff)
	}
	var out bytes.Buffer
	if _, err := Export(ctx, s, &out, "factory.example/press:1", "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	other := newMemory()
	if _, err := Import(ctx, other, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, other, cmp.AllowUnexported(memory{})); diff != "" {
		t.Errorf("the copy differs: %s", diff)
	}
	if _, err := Export(ctx, s, io.Discard, "nothing:1"); !errors.Is(err, runtime.ErrNotFound) || !strings.Contains(err.Error(), "docker.io/library/nothing:1") {
		t.Errorf("an image that is not there: %v", err)
	}
}

// TestOldDocker imports what docker save wrote before it wrote OCI layouts: layers by names of their own, some of them links.
func TestOldDocker(t *testing.T) {
	data := pack(t, [][2]string{
		{"aaa/VERSION", "1.0"},
		{"aaa/json", "{}"},
		{"aaa/layer.tar", "layer one"},
		{"bbb/layer.tar", "-> ../aaa/layer.tar"},
		{"ccc.json", `{"architecture":"` + goruntime.GOARCH + `"}`},
		{"manifest.json", `[{"Config":"ccc.json","RepoTags":["press:1","factory.example/press:1"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}]`},
		{"repositories", `{}`},
	})
	s := newMemory()
	got, err := Import(t.Context(), s, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "docker.io/library/press:1" || got[0].Digest != got[1].Digest {
		t.Fatalf("got %v", got)
	}
	var doc document
	if err := json.Unmarshal(s.blobs[got[0].Digest], &doc); err != nil || len(doc.Layers) != 2 || doc.Layers[0].Digest != doc.Layers[1].Digest {
		t.Errorf("manifest: %+v, %v", doc, err)
	}
	if _, err := Import(t.Context(), s, bytes.NewReader(data), "factory.example/other:2"); err != nil || s.names["factory.example/other:2"].Digest != got[0].Digest {
		t.Errorf("a name of one's own: %v", err)
	}
}

// TestIndexForSeveralMachines needs what this machine needs, and no more.
func TestIndexForSeveralMachines(t *testing.T) {
	img, _ := build(t, "x:1", "x")
	index := func(arch string) (digest, data string) {
		data = fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":"sha256:%064d","size":7,"platform":{"os":"linux","architecture":"other"}},
			{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}]}`,
			image.TypeManifest, 0, image.TypeManifest, img.Manifest.Digest, img.Manifest.Size, arch)
		return fmt.Sprintf("%x", sha256.Sum256([]byte(data))), data
	}
	files := func(arch string) [][2]string {
		digest, data := index(arch)
		top := fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":"sha256:%s","size":%d,"annotations":{"org.opencontainers.image.ref.name":"x:1"}}]}`,
			image.TypeIndex, digest, len(data))
		all := [][2]string{{"index.json", top}, {"blobs/sha256/" + digest, data}}
		for _, b := range img.Blobs {
			all = append(all, [2]string{"blobs/" + strings.Replace(b.Digest, ":", "/", 1), string(b.Data)})
		}
		return all
	}
	s := newMemory()
	if _, err := Import(t.Context(), s, bytes.NewReader(pack(t, files(goruntime.GOARCH)))); err != nil {
		t.Fatal(err)
	}
	if err := walk(t.Context(), s, child{Descriptor: s.names["docker.io/library/x:1"]}, func(child, *document) error { return nil }); err != nil {
		t.Error(err)
	}
	s = newMemory()
	_, err := Import(t.Context(), s, bytes.NewReader(pack(t, files("other"))))
	if err == nil || !strings.Contains(err.Error(), "nothing for linux/"+goruntime.GOARCH) || len(s.names) > 0 {
		t.Errorf("an image for other machines: %v, %v", err, s.names)
	}
}

// TestRefuses tells what is wrong with an archive, and names nothing then.
func TestRefuses(t *testing.T) {
	img, whole := build(t, "x:1", "x")
	index := fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, image.TypeManifest, img.Manifest.Digest, img.Manifest.Size)
	manifest := string(img.Blobs[2].Data)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"no archive":   {[]byte("hello, this is no archive"), "no whole tar"},
		"cut off":      {whole[:len(whole)/2], "no whole tar"},
		"empty":        {pack(t, nil), "neither an index.json"},
		"no name":      {pack(t, [][2]string{{"index.json", index}, {"blobs/sha256/" + img.Manifest.Digest[7:], manifest}}), "has no name"},
		"wrong digest": {pack(t, [][2]string{{"blobs/sha256/" + strings.Repeat("0", 64), "x"}}), "unexpected digest"},
		"zstd":         {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0}, "zstd -d"},
		"no layer":     {pack(t, [][2]string{{"manifest.json", `[{"Config":"a.json","RepoTags":["x:1"]}]`}}), "has no a.json"},
		"incomplete": {pack(t, [][2]string{
			{"index.json", strings.Replace(index, `"size"`, `"annotations":{"io.containerd.image.name":"x:1"},"size"`, 1)},
			{"blobs/sha256/" + img.Manifest.Digest[7:], manifest},
		}), "image x:1 is not complete: blob " + img.Blobs[1].Digest},
	} {
		s := newMemory()
		_, err := Import(t.Context(), s, bytes.NewReader(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) || len(s.names) > 0 || s.leases != 0 {
			t.Errorf("%s: %v; names %v, leases %d", name, err, s.names, s.leases)
		}
	}
}

func FuzzImport(f *testing.F) {
	img, err := image.Build(image.Config{Ref: "x:1", Files: []image.File{{Path: "/x"}}})
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := img.WriteTo(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newMemory()
		got, err := Import(t.Context(), s, bytes.NewReader(data))
		if err == nil && len(got) != 0 {
			if _, err := Export(t.Context(), s, io.Discard, got[0].Name); err != nil {
				t.Errorf("what was imported cannot be exported: %v", err)
			}
		}
	})
}
