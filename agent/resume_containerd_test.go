package agent

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime/containerdtest"
	"github.com/shoal-edge/shoal/agent/runtime/image"
)

// broken is a registry over a link that breaks in the middle of a layer, as long as it is bad; it counts the bytes of layers.
type broken struct {
	testRegistry
	layer string

	mu   sync.Mutex
	bad  bool
	sent int
	half chan struct{} // gets a value when half a layer has been sent
}

func (b *broken) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if !strings.HasSuffix(q.URL.Path, b.layer) || q.Method != http.MethodGet {
		b.testRegistry.ServeHTTP(w, q)
		return
	}
	b.mu.Lock()
	bad := b.bad
	b.mu.Unlock()
	data, from := b.blobs[b.layer].Data, 0
	if part, ok := strings.CutPrefix(q.Header.Get("Range"), "bytes="); ok {
		from, _ = strconv.Atoi(part[:strings.IndexByte(part, '-')])
		w.Header().Set("Content-Range", "bytes "+strconv.Itoa(from)+"-"+strconv.Itoa(len(data)-1)+"/"+strconv.Itoa(len(data)))
	}
	rest := data[from:]
	w.Header().Set("Content-Length", strconv.Itoa(len(rest)))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	if bad {
		rest = rest[:len(rest)/2]
	}
	n, _ := w.Write(rest)
	b.mu.Lock()
	b.sent += n
	b.mu.Unlock()
	if bad {
		_ = http.NewResponseController(w).Flush()
		select {
		case b.half <- struct{}{}:
		default:
		}
		<-q.Context().Done()
	}
}

// A pull that is cut off, by the link, by the power, goes on where it was; and where the power took what the file system had promised, it
// begins anew instead of failing for ever.
func TestResumeOnContainerd(t *testing.T) {
	daemon := containerdtest.Start(t)
	for _, torn := range []bool{false, true} {
		registry := &broken{testRegistry: testRegistry{blobs: map[string]image.Blob{}, open: true}, bad: true, half: make(chan struct{}, 1)}
		name := "app:whole"
		if torn {
			name = "app:torn"
		}
		registry.add(t, name, name, image.File{Path: "/large", Content: bytes.Repeat([]byte(name), 1<<20)})
		for _, b := range registry.blobs {
			if b.MediaType == image.TypeLayer {
				registry.layer = b.Digest
			}
		}
		web := &http.Server{Handler: registry}
		listener := daemon.Listen(t)
		go web.Serve(listener)
		ref := listener.Addr().String() + "/" + name
		ctx, cancel := context.WithCancel(t.Context())
		pulled := make(chan error, 1)
		go func() {
			_, err := daemon.Runtime.Pull(ctx, ref, nil, &criapi.PodSandboxConfig{})
			pulled <- err
		}()
		<-registry.half
		size := len(registry.blobs[registry.layer].Data)
		file := ingest(t, daemon, registry.layer, size/3)
		daemon.Down() // the power fails
		cancel()
		<-pulled
		if torn {
			stat, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, bytes.Repeat([]byte{0}, int(stat.Size())), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_ = web.Close()
		daemon.Up(t)
		daemon.Await(t)
		registry.mu.Lock()
		registry.bad, registry.sent = false, 0
		registry.mu.Unlock()
		again := daemon.ListenAt(t, listener.Addr().String())
		web = &http.Server{Handler: registry}
		go web.Serve(again)
		if _, err := daemon.Runtime.Pull(t.Context(), ref, nil, &criapi.PodSandboxConfig{}); err != nil {
			t.Fatalf("torn %t: %v", torn, err)
		}
		_ = web.Close()
		registry.mu.Lock()
		switch {
		case !torn && registry.sent > size/2+size/4:
			t.Errorf("after half of it, %d of %d bytes were fetched again", registry.sent, size)
		case torn && registry.sent < size:
			t.Errorf("the layer is of what was torn: %d of %d bytes were fetched", registry.sent, size)
		}
		registry.mu.Unlock()
	}
}

// ingest is the file of a layer that containerd fetches, once enough of it is there.
func ingest(t *testing.T, daemon *containerdtest.Daemon, layer string, enough int) string {
	t.Helper()
	for range 200 {
		found, err := filepath.Glob(daemon.Dir + "/root/io.containerd.content.v1.content/ingest/*/ref")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			ref, _ := os.ReadFile(name)
			file := filepath.Join(filepath.Dir(name), "data")
			if stat, err := os.Stat(file); err == nil && strings.HasSuffix(string(ref), layer) && stat.Size() > int64(enough) {
				return file
			}
		}
		time.Sleep(20 * time.Millisecond) // containerd tells nobody how far it is
	}
	t.Fatal("containerd does not begin with the layer")
	return ""
}
