package firmware_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/chunks"
	"github.com/shoal-edge/shoal/firmware/firmwaretest"
)

// slots is a backend in memory, of which slot a runs.
type slots struct {
	firmwaretest.Runs
	mu     sync.Mutex
	medium map[string][]byte
	// full: nothing can be written any more after so many bytes. 0: no limit.
	full    int
	written int
}

func (s *slots) Open(_ context.Context, name string) (firmware.Slot, error) {
	return memory{s, name}, nil
}

func (s *slots) Read(_ context.Context, name string) (firmware.Source, error) {
	return memory{s, name}, nil
}

type memory struct {
	s    *slots
	name string
}

func (m memory) ReadAt(p []byte, offset int64) (int, error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return bytes.NewReader(m.s.medium[m.name]).ReadAt(p, offset)
}

func (m memory) WriteAt(p []byte, offset int64) (int, error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.s.written += len(p); m.s.full > 0 && m.s.written > m.s.full {
		return 0, errors.New("no space left on device")
	}
	medium := m.s.medium[m.name]
	if end := int(offset) + len(p); end > len(medium) {
		medium = append(medium, make([]byte, end-len(medium))...)
		m.s.medium[m.name] = medium
	}
	return copy(medium[offset:], p), nil
}
func (memory) Sync() error  { return nil }
func (memory) Close() error { return nil }

// web is the makers' server, in memory.
type web struct {
	mu    sync.Mutex
	files map[string][]byte
	// noRanges: it sends everything. flaky: it breaks off after so many bytes, each time after more.
	noRanges bool
	flaky    int
	sent     map[string]int
	requests int
}

func (w *web) RoundTrip(q *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	file, ok := w.files[q.URL.Path]
	reply := &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{}, Request: q}
	from, to := 0, len(file)
	if text := q.Header.Get("Range"); text != "" && !w.noRanges {
		first, last, _ := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
		from, _ = strconv.Atoi(first)
		if last != "" {
			n, _ := strconv.Atoi(last)
			to = min(to, n+1)
		}
		reply.StatusCode = http.StatusPartialContent
		reply.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(file)))
	}
	if !ok || from > to {
		reply.StatusCode, reply.Status, reply.Body = http.StatusNotFound, "404 Not Found", http.NoBody
		return reply, nil
	}
	body := io.Reader(bytes.NewReader(file[from:to]))
	if w.flaky > 0 && to-from > w.flaky {
		body = io.MultiReader(bytes.NewReader(file[from:from+w.flaky]), cutOff{})
		w.flaky += w.flaky / 8
	}
	reply.Body = &counted{body, w, q.URL.Path}
	return reply, nil
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type counted struct {
	io.Reader
	w    *web
	path string
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.w.mu.Lock()
	c.w.sent[c.path] += n
	c.w.mu.Unlock()
	return n, err
}
func (*counted) Close() error { return nil }

// transfer is a device that runs one release and is told to install another.
type transfer struct {
	*slots
	*web
	cfg        firmware.Config
	assignment *firmwarev1.Assignment
	old, image []byte
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func noise(seed uint64, size int) []byte {
	random := rand.New(rand.NewPCG(seed, 9))
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(random.Uint32() >> 7 & 0x3f) // compresses a little
	}
	return data
}

// newTransfer makes a release of four megabytes that differs from the old one in one of them.
func newTransfer(t *testing.T) *transfer {
	old := noise(1, 4<<20)
	image := append(append(bytes.Clone(old[:1<<20]), noise(2, 1<<20)...), old[2<<20:]...)
	image = append(image[:100], append([]byte("inserted"), image[100:]...)...)
	var packed bytes.Buffer
	sum, err := chunks.Pack(&packed, bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	x := &transfer{
		slots: &slots{medium: map[string][]byte{"a": bytes.Clone(old), "b": nil}},
		web:   &web{files: map[string][]byte{"/image": image, "/pack": packed.Bytes()}, sent: map[string]int{}},
		old:   old, image: image,
	}
	x.cfg = firmware.Config{Backend: x.slots, Dir: t.TempDir(), HardwareID: "board", BootID: "boot", HTTP: &http.Client{Transport: x.web}}
	x.assignment = &firmwarev1.Assignment{
		ID: "1", Release: "r2", Version: "2", Counter: 2,
		Artifact: firmwarev1.Artifact{
			Name: "image", Type: firmwarev1.Image, URL: "http://makers/image", Size: int64(len(image)), SHA256: digestOf(image),
			Chunks: &firmwarev1.Chunks{URL: "http://makers/pack", Size: sum.Size, IndexSize: sum.IndexSize, IndexSHA256: sum.IndexSHA256},
		},
	}
	return x
}

// run lets the device go until it is done with the download, or for so long, and returns its last status.
func (x *transfer) run(t *testing.T, most time.Duration) firmwarev1.DeviceFirmwareStatus {
	t.Helper()
	return firmwaretest.Download(t, x.cfg, x.assignment, most)
}

func (x *transfer) staged(t *testing.T) {
	t.Helper()
	if s := x.run(t, 24*time.Hour); s.State != firmwarev1.Staged {
		t.Fatalf("%s: %s %s", s.State, s.Reason, s.Message)
	}
	if !bytes.Equal(x.medium["b"][:len(x.image)], x.image) {
		t.Fatal("the slot holds something else")
	}
	if !bytes.Equal(x.medium["a"], x.old) {
		t.Fatal("the running release was touched")
	}
}

func (x *transfer) gave(t *testing.T, path string, least, most int) {
	t.Helper()
	if n := x.sent[path]; n < least || n > most {
		t.Errorf("the server sent %d bytes of %s, want %d to %d", n, path, least, most)
	}
}

// TestChunks fetches the pieces that the running release does not have.
func TestChunks(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(x *transfer)
		pack, all [2]int // how much is fetched of the pack, and of the image
	}{
		"a megabyte is new": {func(*transfer) {}, [2]int{500 << 10, 1100 << 10}, [2]int{}},
		"no release of ours runs": {
			func(x *transfer) { x.old = noise(5, 1<<20); x.medium["a"] = bytes.Clone(x.old) }, [2]int{2 << 20, 4 << 20}, [2]int{},
		},
		"the release lay in the slot, damaged": {func(x *transfer) {
			x.medium["b"] = bytes.Clone(x.image)
			x.medium["b"][1500<<10] ^= 1
		}, [2]int{1 << 10, 140 << 10}, [2]int{}},
		"a server without ranges": {func(x *transfer) { x.noRanges = true }, [2]int{2 << 20, 7 << 20}, [2]int{}},
		"a link that breaks":      {func(x *transfer) { x.flaky = 60 << 10 }, [2]int{500 << 10, 2 << 20}, [2]int{}},
		"another index": {func(x *transfer) {
			pack := x.files["/pack"]
			pack[len(pack)-1] ^= 1
		}, [2]int{1, 64 << 10}, [2]int{4 << 20, 4<<20 + 8}},
		"another piece": {func(x *transfer) {
			pack := x.files["/pack"]
			for i := range len(pack) / 2 {
				pack[i] ^= 1
			}
		}, [2]int{1, 1 << 20}, [2]int{4 << 20, 4<<20 + 8}},
		"no pack on the server": {func(x *transfer) { x.assignment.Artifact.Chunks = nil }, [2]int{}, [2]int{4 << 20, 4<<20 + 8}},
		"an index without end": {func(x *transfer) {
			x.assignment.Artifact.Chunks.IndexSize, x.assignment.Artifact.Chunks.Size = 1<<60, 1<<60
		}, [2]int{}, [2]int{4 << 20, 4<<20 + 8}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTransfer(t)
				c.change(x)
				x.staged(t)
				x.gave(t, "/pack", c.pack[0], c.pack[1])
				x.gave(t, "/image", c.all[0], c.all[1])
			})
		})
	}
}

// TestChunksResume has the device switched off again and again: what is in the slot is not fetched again.
func TestChunksResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTransfer(t)
		x.medium["a"] = nil // everything comes over the wire
		x.old = nil
		x.cfg.Rate = 64 << 10
		for range 3 {
			if s := x.run(t, 15*time.Second); s.State != firmwarev1.Downloading || s.Percent == 0 {
				t.Fatalf("%s, %d %%", s.State, s.Percent)
			}
		}
		x.staged(t)
		x.gave(t, "/pack", 2<<20, x.size()+4*(200<<10))
	})
}

func (x *transfer) size() int { return len(x.files["/pack"]) }

// A device on a metered link fetches no faster than it may.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTransfer(t)
		x.assignment.Artifact.Chunks = nil
		x.cfg.Rate = 4 << 10 // 32 kbit/s
		begin := time.Now()
		x.staged(t)
		if took, want := time.Since(begin), time.Duration(len(x.image)/(4<<10))*time.Second; took < want-2*time.Second || took > want+5*time.Second {
			t.Errorf("took %s, want %s", took, want)
		}
		if x.requests != 1 {
			t.Errorf("%d requests: a slow link is not a broken one", x.requests)
		}
	})
}

// A slot that cannot be written fails the release.
func TestFullSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTransfer(t)
		x.full = 2 << 20
		if s := x.run(t, time.Hour); s.State != firmwarev1.WriteFailed || s.Reason != "WriteError" {
			t.Errorf("%s: %s %s", s.State, s.Reason, s.Message)
		}
	})
}

// near are neighbours of which one has something.
type near struct {
	has    func(digest string) []byte
	waited []string
	ended  []bool
}

func (n *near) Turn(_ context.Context, name string, waiting func(string)) func(bool) {
	n.waited = append(n.waited, name)
	waiting("pi-7")
	return func(ok bool) { n.ended = append(n.ended, ok) }
}

func (n *near) Fetch(_ context.Context, digest string, from, to int64) (io.ReadCloser, error) {
	data := n.has(digest)
	if data == nil {
		return nil, errors.New("nobody has it")
	}
	if to < 0 {
		to = int64(len(data))
	}
	return io.NopCloser(bytes.NewReader(data[from:to])), nil
}

// TestNearby takes what is near from there, and believes nobody.
func TestNearby(t *testing.T) {
	for _, inChunks := range []bool{true, false} {
		for name, c := range map[string]struct {
			neighbour func(x *transfer) []byte
			folder    bool
			outside   bool // the makers' server has to give what is new
		}{
			"a neighbour has it":               {func(x *transfer) []byte { return x.image }, false, false},
			"nobody has it":                    {func(*transfer) []byte { return nil }, false, true},
			"a neighbour lies":                 {func(x *transfer) []byte { return noise(6, len(x.image)) }, false, true},
			"a neighbour gives only a part":    {func(x *transfer) []byte { return append(bytes.Clone(x.image[:1<<20]), noise(6, 3<<20+8)...) }, false, true},
			"it was brought":                   {func(*transfer) []byte { return nil }, true, false},
			"it was brought, a neighbour lies": {func(x *transfer) []byte { return noise(6, len(x.image)) }, true, false},
		} {
			t.Run(fmt.Sprintf("%s, chunks=%t", name, inChunks), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					x := newTransfer(t)
					if !inChunks {
						x.assignment.Artifact.Chunks = nil
					}
					n := &near{has: func(digest string) []byte {
						if digest != "sha256:"+digestOf(x.image) {
							t.Errorf("asked for %s", digest)
						}
						return c.neighbour(x)
					}}
					x.cfg.Neighbours = n
					if c.folder {
						x.cfg.Artifacts = firmware.Artifacts(filepath.Join(t.TempDir(), "artifacts"))
						if err := x.cfg.Artifacts.Add(digestOf(x.image), int64(len(x.image)), bytes.NewReader(x.image)); err != nil {
							t.Fatal(err)
						}
					}
					x.staged(t)
					if len(n.waited) != 1 || n.waited[0] != firmware.Name(digestOf(x.image)) || len(n.ended) != 1 || !n.ended[0] {
						t.Errorf("it waited for its turn %q, and ended %v", n.waited, n.ended)
					}
					index := 0
					if inChunks {
						index = int(x.assignment.Artifact.Chunks.IndexSize)
					}
					if sent := x.sent["/image"] + x.sent["/pack"] - index; (sent > 0) != c.outside {
						t.Errorf("%d bytes came from outside", sent)
					}
				})
			})
		}
	}
}

// What a device has whole it gives to neighbours; what it is writing it does not.
func TestGive(t *testing.T) {
	x := newTransfer(t)
	x.assignment.Artifact.Chunks = nil
	x.cfg.Artifacts = firmware.Artifacts(t.TempDir())
	x.staged(t)
	d, err := firmware.New(x.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	digest := "sha256:" + digestOf(x.image)
	size, err := d.Size(t.Context(), digest)
	var out bytes.Buffer
	if err := errors.Join(err, d.Copy(t.Context(), &out, digest, 100)); err != nil || size != int64(len(x.image)) || !bytes.Equal(out.Bytes(), x.image[100:]) {
		t.Errorf("%v: %d and %d bytes", err, size, out.Len())
	}
	if other := digestOf(x.old); d.Has(t.Context(), other) || !d.Has(t.Context(), digestOf(x.image)) {
		t.Error("it gives what it has not, or not what it has")
	}
	if err := d.Copy(t.Context(), &out, "sha256:"+digestOf(x.old), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what it has not: %v", err)
	}
}

func TestArtifacts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "artifacts")
	a, data := firmware.Artifacts(dir), []byte("a release")
	sum := digestOf(data)
	for name, c := range map[string]struct {
		sum  string
		size int64
		data string
	}{
		"other content": {sum, 9, "a releasE"}, "too short": {sum, 9, "a rel"}, "too long": {sum, 9, "a release and more"},
		"no name": {"../../etc/passwd", 9, "a release"},
	} {
		if err := a.Add(c.sum, c.size, strings.NewReader(c.data)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 || a.Has(t.Context(), sum) {
		t.Errorf("left behind: %v", files)
	}
	if err := a.Add(sum, int64(len(data)), bytes.NewReader(data)); err != nil || !a.Has(t.Context(), sum) {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := a.Copy(t.Context(), &out, "sha256:"+sum, 2); err != nil || out.String() != "release" {
		t.Errorf("%v: %q", err, out.String())
	}
	if none := firmware.Artifacts(""); none.Has(t.Context(), sum) {
		t.Error("no folder has something")
	}
}
