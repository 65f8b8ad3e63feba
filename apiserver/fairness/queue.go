// Package fairness shares the requests that a server works on at once out among those who make them, so that one who makes too many
// waits for himself.
package fairness

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Config configures a Queue.
type Config struct {
	// Total is how many requests are worked on at once. One who makes them gets three quarters of it at most, so that others find
	// room at once; among those who wait, whoever has the fewest comes first.
	Total int
	// Waiting is how many requests of one wait at most, and Wait for how long.
	Waiting int
	Wait    time.Duration
}

// Queue lets requests in. It is safe for concurrent use.
type Queue struct {
	cfg  Config
	each int // of one

	mu      sync.Mutex
	running int
	flows   map[string]*flow // those with a request that runs or waits
}

// flow is the requests of one.
type flow struct {
	running int
	waiting []*ticket
}

// ticket is a request that waits.
type ticket struct {
	since time.Time
	ready chan struct{} // closed when it may go on
}

// New returns a queue.
func New(cfg Config) *Queue {
	return &Queue{cfg: cfg, each: max(1, cfg.Total-cfg.Total/4), flows: map[string]*flow{}}
}

// Enter waits until a request of somebody may go on. ok is false if it may not, soon; otherwise release must be called at its end.
func (q *Queue) Enter(ctx context.Context, who string) (release func(), ok bool) {
	t, ok := q.join(who)
	if !ok {
		return nil, false
	}
	release = sync.OnceFunc(func() { q.leave(who) })
	select {
	case <-t.ready:
		return release, true
	default:
	}
	timer := time.NewTimer(q.cfg.Wait)
	defer timer.Stop()
	select {
	case <-t.ready:
		return release, true
	case <-ctx.Done():
	case <-timer.C:
	}
	if q.abandon(who, t) {
		return nil, false
	}
	return release, true // it came in at the last moment
}

// join adds a request, and lets it in if there is room.
func (q *Queue) join(who string) (*ticket, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flows[who]
	if f == nil {
		f = &flow{}
		q.flows[who] = f
	}
	if len(f.waiting) > 0 && len(f.waiting) >= q.cfg.Waiting {
		return nil, false
	}
	t := &ticket{since: time.Now(), ready: make(chan struct{})}
	f.waiting = append(f.waiting, t)
	q.admit()
	return t, true
}

// leave ends a request.
func (q *Queue) leave(who string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.flows[who].running--
	q.drop(who)
	q.admit()
}

// abandon takes a request out that has waited for too long. False: it has been let in.
func (q *Queue) abandon(who string, t *ticket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flows[who]
	if f == nil {
		return false
	}
	at := slices.Index(f.waiting, t)
	if at < 0 {
		return false
	}
	f.waiting = slices.Delete(f.waiting, at, at+1)
	q.drop(who)
	return true
}

func (q *Queue) drop(who string) {
	if f := q.flows[who]; f.running == 0 && len(f.waiting) == 0 {
		delete(q.flows, who)
	}
}

// admit lets requests in while there is room. Callers hold the lock.
func (q *Queue) admit() {
	for q.running < q.cfg.Total {
		next := q.next()
		if next == nil {
			return
		}
		close(next.waiting[0].ready)
		next.waiting = next.waiting[1:]
		next.running++
		q.running++
	}
}

// next is who comes first: who has the fewest running and, of those, has waited longest.
func (q *Queue) next() *flow {
	var best *flow
	for _, f := range q.flows {
		if len(f.waiting) == 0 || f.running >= q.each {
			continue
		}
		if best == nil || f.running < best.running || f.running == best.running && f.waiting[0].since.Before(best.waiting[0].since) {
			best = f
		}
	}
	return best
}
