package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime/image"
	"github.com/shoal-edge/shoal/agent/share"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// counted is a registry that notes which pieces it gives, and holds them back for a while. What a tag stands for it tells everybody.
type counted struct {
	testRegistry
	mu    sync.Mutex
	given map[string]int
	hold  chan struct{}
}

func (c *counted) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if part := strings.Split(q.URL.Path, "/"); q.Method == http.MethodGet && len(part) == 5 && strings.HasPrefix(part[4], "sha256:") {
		c.mu.Lock()
		c.given[part[4]]++
		c.mu.Unlock()
		<-c.hold
	}
	c.testRegistry.ServeHTTP(w, q)
}

// shared makes a board share images with others, which are found by their names.
func (b *board) shared(name string, lab *transporttest.Loopback, peers func(but string) []share.Peer, registry http.Handler) (address string) {
	b.t.Helper()
	id := lab.Node(b.t, name)
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	mirror, server := b.daemon.Listen(b.t), b.daemon.Listen(b.t)
	web := &http.Server{Handler: registry}
	go web.Serve(server)
	b.t.Cleanup(func() { _ = web.Close() })
	r := b.daemon.Runtime
	s := share.New(share.Config{
		Name: name, Peers: func() []share.Peer { return peers(name) }, Store: r.Content(), Logger: slog.New(slog.DiscardHandler),
		Has:    func(ctx context.Context, ref string) bool { _, err := r.Image(ctx, ref); return err == nil },
		Server: id.NeighbourServer(func(string) bool { return true }), Client: id.NeighbourClient,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, outside, mirror) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.stop()
	b.registries = []Registry{{Host: "registry.shoal.test", Endpoint: "http://" + server.Addr().String()}}
	b.edit = func(c *Config) { c.Mirror, c.Turn = "http://"+mirror.Addr().String(), s.Turn }
	b.start()
	return outside.Addr().String()
}

// Two devices that are given a pod of the same image at the same time fetch each piece from the registry once between them, and a third
// that comes later gets all from them. What is fetched is what the registry has.
func TestShareOnContainerd(t *testing.T) {
	boards := []*board{newBoard(t), newBoard(t), newBoard(t)} // or the test is skipped, before it needs busybox
	lab := transporttest.NewLoopback(t)
	registry := &counted{testRegistry: testRegistry{blobs: map[string]image.Blob{}, open: true}, given: map[string]int{}, hold: make(chan struct{})}
	registry.add(t, "app:1", "one")
	var mu sync.Mutex
	var all []share.Peer
	peers := func(but string) (others []share.Peer) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range all {
			if p.Name != but {
				others = append(others, p)
			}
		}
		return others
	}
	pod := testPod("app", "")
	c := &pod.Spec.Containers[0]
	c.Image, c.ImagePullPolicy, c.Command = "registry.shoal.test/app:1", corev1.PullIfNotPresent, nil
	for i, b := range boards {
		name := fmt.Sprintf("pi-%d", i)
		address := b.shared(name, lab, peers, registry)
		mu.Lock()
		all = append(all, share.Peer{Name: name, Address: address})
		mu.Unlock()
	}
	for _, b := range boards[:2] {
		b.apply(encode(t, "pods/default/app", pod))
	}
	close(registry.hold)
	for _, b := range boards[:2] {
		b.await("running", func() bool { return b.container(pod).State.Running != nil })
	}
	boards[2].apply(encode(t, "pods/default/app", pod))
	boards[2].await("running", func() bool { return boards[2].container(pod).State.Running != nil })
	registry.mu.Lock()
	defer registry.mu.Unlock()
	for piece, n := range registry.given {
		if n != 1 {
			t.Errorf("%s was fetched %d times", piece, n)
		}
	}
	if len(registry.given) != 3 { // manifest, configuration, layer
		t.Errorf("the registry gave %v", registry.given)
	}
}
