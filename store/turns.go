package store

import (
	"context"
	"sync"
)

// turns lets writes that would only conflict with each other happen one after another. It holds an entry for each key that somebody
// has or waits for.
type turns struct {
	mu    sync.Mutex
	taken map[Key]*turn
}

type turn struct {
	free    chan struct{} // holds one token while nobody has the turn
	claimed int           // who has it or waits for it
}

// take waits for a key. The function gives it back.
func (ts *turns) take(ctx context.Context, key Key) (func(), error) {
	ts.mu.Lock()
	t := ts.taken[key]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		ts.taken[key] = t
	}
	t.claimed++
	ts.mu.Unlock()
	select {
	case <-t.free:
		return func() {
			t.free <- struct{}{}
			ts.leave(key, t)
		}, nil
	case <-ctx.Done():
		ts.leave(key, t)
		return nil, ctx.Err()
	}
}

func (ts *turns) leave(key Key, t *turn) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.claimed--; t.claimed == 0 {
		delete(ts.taken, key)
	}
}
