package share

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/pki"
)

const (
	// waitAtMost is how long one question, when a fetch is over, stays open.
	waitAtMost = 25 * time.Second
	// waitInAll is how long a device waits for a neighbour's fetch before it fetches by itself.
	waitInAll = 30 * time.Minute
	// maxName bounds the names of images.
	maxName = 512
)

// fetch is an image that this device fetches, or asks its neighbours whether they do.
type fetch struct {
	// certain: it fetches. Before, it may yield to a neighbour that asks at the same time.
	certain bool
	yielded string
	done    chan struct{}
	ok      bool // once done: the image is here
}

// answer is what a device says of an image.
type answer struct {
	State string `json:"state"`
}

const (
	idle     = "idle"     // it does not fetch it
	fetching = "fetching" // it does
	have     = "have"     // it has done so
)

// Turn returns when this device should fetch the image: no neighbour fetches it. Until end is called, neighbours that want the image wait
// for this device. Waiting is called with the name of the neighbour that is waited for.
//
// Two devices that ask each other at the same time settle it by their names: whoever is asked while it asks yields to a smaller name, and
// says at once that it does, or that it will fetch.
func (s *Sharer) Turn(ctx context.Context, ref string, waiting func(neighbour string)) (end func(ok bool)) {
	deadline := time.Now().Add(waitInAll)
	for len(ref) <= maxName && time.Now().Before(deadline) && ctx.Err() == nil {
		f, other := s.begin(ref)
		if other != nil { // another pod of this device
			select {
			case <-other.done:
			case <-ctx.Done():
			}
			break
		}
		busy := s.ask(ctx, ref)
		s.mu.Lock()
		if busy == nil && f.yielded == "" {
			f.certain = true
			s.mu.Unlock()
			return func(ok bool) { s.end(ref, f, ok) }
		}
		if busy == nil {
			busy = s.peer(f.yielded)
		}
		s.mu.Unlock()
		s.end(ref, f, false)
		if busy == nil {
			continue // it is no neighbour any more
		}
		waiting(busy.Name)
		if s.await(ctx, *busy, ref, deadline) {
			break // this one's pieces come from there
		}
	}
	return func(bool) {}
}

// begin notes that this device wants to fetch an image, or returns the fetch of it that there is.
func (s *Sharer) begin(ref string) (own, other *fetch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.fetches[ref]; f != nil {
		return nil, f
	}
	f := &fetch{done: make(chan struct{})}
	s.fetches[ref] = f
	return f, nil
}

func (s *Sharer) end(ref string, f *fetch, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.ok = ok
	close(f.done)
	delete(s.fetches, ref)
}

func (s *Sharer) peer(name string) *Peer {
	for _, p := range s.c.Peers() {
		if p.Name == name {
			return &p
		}
	}
	return nil
}

// ask asks all neighbours at once, and returns one that fetches the image.
func (s *Sharer) ask(ctx context.Context, ref string) *Peer {
	peers := s.c.Peers()
	states := make([]string, len(peers))
	var asking sync.WaitGroup
	for i, p := range peers {
		asking.Go(func() { states[i] = s.question(ctx, p, len(peers), http.MethodPost, ref, patience) })
	}
	asking.Wait()
	for i, state := range states {
		if state == fetching {
			return &peers[i]
		}
	}
	return nil
}

// await waits until the neighbour does not fetch the image any more, and reports whether it has it.
func (s *Sharer) await(ctx context.Context, p Peer, ref string, deadline time.Time) bool {
	for time.Now().Before(deadline) && ctx.Err() == nil {
		begun := time.Now()
		switch s.question(ctx, p, len(s.c.Peers()), http.MethodGet, ref, waitAtMost+patience) {
		case have:
			return true
		case fetching:
			// An answer before its time is one of a neighbour that has no place for another question.
			if rest := time.Second - time.Since(begun); rest > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(rest):
				}
			}
		default:
			return false
		}
	}
	return false
}

// question asks a neighbour about an image; the answer of one that does not answer is empty.
func (s *Sharer) question(ctx context.Context, p Peer, present int, method, ref string, limit time.Duration) string {
	q, err := http.NewRequestWithContext(ctx, method, "https://"+p.Address+"/v1/fetches?ref="+url.QueryEscape(ref), nil)
	if err != nil {
		return ""
	}
	reply, err := s.clients.do(ctx, p, present, q, limit)
	if err != nil {
		s.c.Logger.Debug("a neighbour does not answer", "neighbour", p.Name, "err", err)
		return ""
	}
	defer discard(reply.Body)
	var a answer
	if err := json.NewDecoder(io.LimitReader(reply.Body, 1<<10)).Decode(&a); err != nil {
		return ""
	}
	return a.State
}

// asked answers a neighbour that would fetch an image.
func (s *Sharer) asked(w http.ResponseWriter, r *http.Request) {
	from, _ := pki.NodeName(r.TLS.PeerCertificates[0])
	s.mu.Lock()
	defer s.mu.Unlock()
	state := idle
	if f := s.fetches[r.URL.Query().Get("ref")]; f != nil {
		if f.certain || from > s.c.Name {
			state = fetching
		} else {
			f.yielded = from
		}
	}
	tell(w, state)
}

// waited answers a neighbour that waits for this device's fetch, when it is over or after a while.
func (s *Sharer) waited(w http.ResponseWriter, r *http.Request) {
	ref := r.URL.Query().Get("ref")
	s.mu.Lock()
	f := s.fetches[ref]
	s.mu.Unlock()
	if f == nil {
		state := idle
		if s.c.Has(r.Context(), ref) {
			state = have
		}
		tell(w, state)
		return
	}
	timer := time.NewTimer(waitAtMost)
	defer timer.Stop()
	state := fetching
	select {
	case <-r.Context().Done():
		return
	case <-timer.C:
	case <-f.done:
		state = idle
		if f.ok {
			state = have
		}
	}
	tell(w, state)
}

func tell(w http.ResponseWriter, state string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, "{\"state\":%q}\n", state) // who has gone needs no answer
}
