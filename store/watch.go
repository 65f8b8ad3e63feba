package store

import (
	"context"
	"fmt"
)

// maxBatch is the largest number of events that one Next returns.
const maxBatch = 256

// Watcher delivers the changes of one resource, in the order of their revisions, each exactly once. It is a position in the
// store's history, so it costs no buffer and no goroutine. One goroutine at a time may call Next.
type Watcher struct {
	store     *Store
	resource  string
	namespace string
	wake      chan struct{}

	// Guarded by store.mu; written by Next under its read lock, which is safe as only one Next runs and every other
	// writer holds the write lock.
	pending bool   // there are matching events from first on
	first   uint64 // revision of the first event that was not delivered
	seen    uint64 // all that happened up to this revision was delivered
	err     error  // why the watch is over
}

// Watch delivers the changes after a revision. It returns ErrGone when the history does not reach back to it.
func (s *Store) Watch(resource, namespace string, after uint64) (*Watcher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch(resource, namespace, after)
}

// ListAndWatch lists and watches what changes after the list, with nothing in between.
func (s *Store) ListAndWatch(resource, namespace string) ([]Item, uint64, *Watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, err := s.watch(resource, namespace, s.revision)
	if err != nil {
		panic(fmt.Errorf("store: the present revision is always in the history: %w", err))
	}
	return s.tables[resource].list(namespace), s.revision, w
}

func (s *Store) watch(resource, namespace string, after uint64) (*Watcher, error) {
	if floor := s.history.floor(resource); after < floor {
		return nil, fmt.Errorf("%w (asked for %d, oldest is %d)", ErrGone, after, floor)
	}
	w := &Watcher{store: s, resource: resource, namespace: namespace, wake: make(chan struct{}, 1), seen: after}
	for i := s.history.after(after); i < s.history.count; i++ {
		if event := s.history.at(i); w.matches(event) {
			w.offer(event)
			break
		}
	}
	if s.watchers[resource] == nil {
		s.watchers[resource] = map[*Watcher]struct{}{}
	}
	s.watchers[resource][w] = struct{}{}
	return w, nil
}

func (w *Watcher) matches(e *Event) bool {
	return e.Item.Key.Resource == w.resource && (w.namespace == "" || e.Item.Key.Namespace == w.namespace)
}

// offer notes that a matching event waits. Callers hold the store's lock.
func (w *Watcher) offer(e *Event) {
	if w.pending || e.Item.Revision <= w.seen {
		return
	}
	w.pending, w.first = true, e.Item.Revision
	w.signal()
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (s *Store) notify(e *Event) {
	for w := range s.watchers[e.Item.Key.Resource] {
		if w.matches(e) {
			w.offer(e)
		}
	}
}

// Next waits for changes and returns them. ErrSlow and ErrGone end the watch: list again.
func (w *Watcher) Next(ctx context.Context) ([]Event, error) {
	for {
		events, err := w.take()
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Poll is Next without waiting: it returns what there is, which may be nothing.
func (w *Watcher) Poll() ([]Event, error) { return w.take() }

func (w *Watcher) take() ([]Event, error) {
	s := w.store
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w.err != nil {
		return nil, w.err
	}
	if !w.pending {
		return nil, nil
	}
	if w.first <= s.history.evicted {
		w.err = ErrSlow
		return nil, w.err
	}
	var events []Event
	i := s.history.after(w.first - 1)
	for ; i < s.history.count; i++ {
		event := s.history.at(i)
		if !w.matches(event) {
			continue
		}
		if len(events) == maxBatch {
			// A transaction touches one object of a resource at most, so this cut never splits a revision.
			w.first = event.Item.Revision
			w.seen = events[len(events)-1].Item.Revision
			return events, nil
		}
		events = append(events, *event)
	}
	w.pending, w.seen = false, max(w.seen, s.revision)
	return events, nil
}

// Progress is a revision up to which every change has been returned by Next: a bookmark. Only the goroutine that calls Next
// may call it.
func (w *Watcher) Progress() uint64 {
	s := w.store
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w.pending || w.err != nil {
		return w.seen
	}
	return max(w.seen, s.revision)
}

// Close ends the watch. It may be called at any time and more than once.
func (w *Watcher) Close() {
	s := w.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.err == nil {
		w.err = ErrClosed
	}
	delete(s.watchers[w.resource], w)
	if len(s.watchers[w.resource]) == 0 {
		delete(s.watchers, w.resource)
	}
	w.signal()
}

// endWatches cuts off every watcher, with ErrGone. Callers hold the store's lock.
func (s *Store) endWatches() {
	for _, watchers := range s.watchers {
		for w := range watchers {
			w.err = ErrGone
			w.signal()
		}
	}
	clear(s.watchers)
}
