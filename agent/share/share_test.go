package share

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pieces is a Store in memory.
type pieces map[string][]byte

func (p pieces) add(data string) string {
	name := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(data)))
	p[name] = []byte(data)
	return name
}

func (p pieces) Size(_ context.Context, digest string) (int64, error) {
	data, ok := p[digest]
	if !ok {
		return 0, runtime.ErrNotFound
	}
	return int64(len(data)), nil
}

func (p pieces) Copy(_ context.Context, w io.Writer, digest string, offset int64) error {
	_, err := w.Write(p[digest][offset:])
	return err
}

// lan is some devices that share.
type lan struct {
	t       *testing.T
	lab     *transporttest.Loopback // certifies devices
	devices []*device
	mu      sync.Mutex
	peers   []Peer
}

type device struct {
	*Sharer
	name   string
	pieces pieces
	mirror string
	has    atomic.Bool
	stop   func()
}

func newLAN(t *testing.T, n int) *lan {
	l := &lan{t: t, lab: transporttest.NewLoopback(t)}
	for i := range n {
		l.add(fmt.Sprintf("pi-%d", i))
	}
	return l
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lan) neighbours(of string) (all []Peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.peers {
		if p.Name != of {
			all = append(all, p)
		}
	}
	return all
}

func (l *lan) add(name string) {
	l.t.Helper()
	d := &device{name: name, pieces: pieces{}}
	id := l.lab.Node(l.t, name)
	outside, local := listen(l.t), listen(l.t)
	d.mirror = "http://" + local.Addr().String()
	d.Sharer = New(Config{
		Name: name, Peers: func() []Peer { return l.neighbours(name) }, Store: d.pieces,
		Has:    func(context.Context, string) bool { return d.has.Load() },
		Server: id.NeighbourServer(func(node string) bool { return l.knows(node) }), Client: id.NeighbourClient,
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, outside, local) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(d.stop)
	l.mu.Lock()
	l.peers = append(l.peers, Peer{name, outside.Addr().String()})
	l.mu.Unlock()
	l.devices = append(l.devices, d)
}

func (l *lan) knows(node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.peers {
		if p.Name == node {
			return true
		}
	}
	return false
}

func (d *device) ask(t *testing.T, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.mirror+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	reply, err := transport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply, data
}

// A containerd gets pieces that a neighbour has, whole or from some byte on, and is sent on for what nobody has, and for tags.
func TestMirror(t *testing.T) {
	l := newLAN(t, 4)
	layer := l.devices[2].pieces.add("a layer of some length")
	manifest := l.devices[3].pieces.add(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`)
	index := l.devices[3].pieces.add(`{"schemaVersion":2,"manifests":[]}`)
	other := l.devices[1].pieces.add("another")
	l.devices[1].stop() // it is away
	asker := l.devices[0]
	for _, c := range []struct {
		path, part string
		code       int
		kind, body string
	}{
		{"/v2/", "", 200, "", ""},
		{"/v2/a/b/blobs/" + layer, "", 200, "application/octet-stream", "a layer of some length"},
		{"/v2/a/b/blobs/" + layer, "bytes=8-", 206, "application/octet-stream", "of some length"},
		{"/v2/a/b/blobs/" + layer, "bytes=8-21", 206, "application/octet-stream", "of some length"},
		{"/v2/a/b/blobs/" + layer, "bytes=8-9", 206, "application/octet-stream", "of"},
		{"/v2/a/b/blobs/" + layer, "bytes=99-", 404, "", ""},
		{"/v2/a/b/blobs/" + layer, "bytes=9-8", 404, "", ""},
		{"/v2/a/b/blobs/" + layer, "bytes=a-b", 404, "", ""},
		{"/v2/a/b/manifests/" + manifest, "", 200, "application/vnd.oci.image.manifest.v1+json", string(l.devices[3].pieces[manifest])},
		{"/v2/a/b/manifests/" + index, "", 200, "application/vnd.oci.image.index.v1+json", string(l.devices[3].pieces[index])},
		{"/v2/a/b/blobs/" + other, "", 404, "", ""},
		{"/v2/a/b/manifests/latest", "", 404, "", ""},
		{"/v2/a/b/tags/list", "", 404, "", ""},
		{"/other", "", 404, "", ""},
	} {
		reply, data := asker.ask(t, c.path, "Range", c.part)
		if reply.StatusCode != c.code || c.code < 300 && string(data) != c.body || c.kind != "" && reply.Header.Get("Content-Type") != c.kind {
			t.Errorf("%s %s: %d %s %q", c.path, c.part, reply.StatusCode, reply.Header.Get("Content-Type"), data)
		}
	}
}

// A device gets firmware, or a part of it, from a neighbour that has it.
func TestFetch(t *testing.T) {
	l := newLAN(t, 3)
	name := l.devices[2].pieces.add("a whole system")
	for _, c := range []struct {
		from, to int64
		want     string
	}{{0, -1, "a whole system"}, {2, 7, "whole"}, {8, -1, "system"}, {8, 99, "system"}} {
		body, err := l.devices[0].Fetch(t.Context(), name, c.from, c.to)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil || string(got) != c.want {
			t.Errorf("from %d to %d: %q, %v", c.from, c.to, got, err)
		}
	}
	if _, err := l.devices[2].Fetch(t.Context(), name, 0, -1); !errors.Is(err, ErrNobody) {
		t.Errorf("what nobody else has: %v", err)
	}
}

// A piece that breaks off is no whole piece for containerd, which then goes on elsewhere.
func TestCutOff(t *testing.T) {
	l := newLAN(t, 2)
	name := l.devices[1].pieces.add(string(make([]byte, 1<<20)))
	l.devices[1].c.Store = failing{l.devices[1].pieces}
	reply, err := http.Get(l.devices[0].mirror + "/v2/a/blobs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	if data, err := io.ReadAll(reply.Body); err == nil {
		t.Errorf("got %q and no error", data)
	}
	http.DefaultClient.CloseIdleConnections()
}

type failing struct{ pieces }

func (f failing) Copy(_ context.Context, w io.Writer, digest string, _ int64) error {
	_, _ = w.Write(f.pieces[digest][:1<<19])
	return io.ErrUnexpectedEOF
}

// Only devices of the cluster that are neighbours are given anything, and only they are believed.
func TestStrangers(t *testing.T) {
	l := newLAN(t, 2)
	name := l.devices[1].pieces.add("secret")
	address := l.peers[1].Address
	for who, id := range map[string]*pki.Identity{
		"of another cluster": transporttest.NewLoopback(t).Node(t, "pi-0"), "of this cluster, elsewhere": l.lab.Node(t, "pi-9"),
	} {
		c := clients{dial: id.NeighbourClient, known: map[Peer]*client{}}
		q, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/v1/blobs/"+name, nil)
		if reply, err := c.do(t.Context(), Peer{"pi-1", address}, 1, q, patience); err == nil {
			t.Errorf("a device %s is answered: %d", who, reply.StatusCode)
			_ = reply.Body.Close()
		}
		c.close()
	}
	l.peers[1].Name = "pi-8" // at its address is another device
	if reply, _ := l.devices[0].ask(t, "/v2/a/blobs/"+name); reply.StatusCode != http.StatusNotFound {
		t.Errorf("a device of another name is believed: %d", reply.StatusCode)
	}
}

// However many devices want an image at once, one fetches it and the others wait. When the one fails, or dies, another does it.
func TestTurns(t *testing.T) {
	l := newLAN(t, 6)
	for round := range 20 {
		var busy, fetched atomic.Int32
		var all sync.WaitGroup
		for _, d := range l.devices {
			d.has.Store(false)
			all.Go(func() {
				end := d.Turn(t.Context(), "factory.example/press:1", func(string) {})
				if fetched.Load() == 0 {
					if busy.Add(1) > 1 {
						t.Errorf("round %d: two devices fetch at once", round)
					}
					time.Sleep(5 * time.Millisecond) // the fetch
					fetched.Add(1)
					busy.Add(-1)
				}
				d.has.Store(true)
				end(true)
			})
		}
		all.Wait()
	}
}

func TestTurnAfterFailure(t *testing.T) {
	l := newLAN(t, 3)
	const ref = "x"
	end := l.devices[2].Turn(t.Context(), ref, nil)
	told := make(chan string, 2)
	turns := make(chan func(bool), 2)
	go func() { turns <- l.devices[0].Turn(t.Context(), ref, func(name string) { told <- name }) }()
	if name := <-told; name != "pi-2" {
		t.Errorf("waits for %s", name)
	}
	select {
	case <-turns:
		t.Fatal("two devices fetch at once")
	default:
	}
	end(false)
	next := <-turns
	// Now this one fetches, and dies.
	go func() { turns <- l.devices[1].Turn(t.Context(), ref, func(name string) { told <- name }) }()
	if name := <-told; name != "pi-0" {
		t.Errorf("waits for %s", name)
	}
	next = afterDeath(l.devices[0], next)
	(<-turns)(true)
	next(false)

	// Another pod of the device waits without asking anybody, and an end of the wait ends it.
	end = l.devices[1].Turn(t.Context(), ref, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { turns <- l.devices[1].Turn(ctx, ref, nil) }()
	cancel()
	(<-turns)(false)
	end(true)
}

func afterDeath(d *device, next func(bool)) func(bool) {
	d.stop()
	return next
}

// TestManyPieces has all devices ask for all pieces at once, and get them right or not at all.
func TestManyPieces(t *testing.T) {
	l := newLAN(t, 3)
	var names []string
	for i := range 8 {
		names = append(names, l.devices[i%2].pieces.add(fmt.Sprint("piece ", i, strings.Repeat("x", 1<<16))))
	}
	var got atomic.Int32
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			reply, data := l.devices[2].ask(t, "/v2/a/blobs/"+name)
			if reply.StatusCode == http.StatusOK {
				if fmt.Sprintf("sha256:%x", sha256.Sum256(data)) != name {
					t.Error("a wrong piece")
				}
				got.Add(1)
			}
		})
	}
	all.Wait()
	if got.Load() == 0 {
		t.Error("no piece came")
	}
}
