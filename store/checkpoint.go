package store

import (
	"slices"
	"strings"
)

// Changes is what a checkpoint has to write: the keys that changed since the last one, as they are at Revision.
type Changes struct {
	Revision uint64
	// Whole says that everything was replaced: Put is all there is, and whatever else the last checkpoint had is gone.
	Whole   bool
	Put     []Item
	Deleted []Key

	store *Store
}

// Changes takes what has changed since it was last called. Whoever fails to write it down calls Undo.
func (s *Store) Changes() *Changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Changes{Revision: s.revision, Whole: s.replaced, store: s}
	if s.replaced {
		for _, t := range s.tables {
			c.Put = append(c.Put, t.list("")...)
		}
		s.changed = nil
	}
	for key := range s.changed {
		if e := s.tables[key.Resource].get(key); e != nil {
			c.Put = append(c.Put, e.item)
		} else {
			c.Deleted = append(c.Deleted, key)
		}
	}
	s.changed, s.replaced = map[Key]struct{}{}, false
	// In key order a B+ tree is written page by page.
	slices.SortFunc(c.Put, func(a, b Item) int { return compareFull(a.Key, b.Key) })
	slices.SortFunc(c.Deleted, compareFull)
	return c
}

// Undo gives the changes back, to be part of the next ones.
func (c *Changes) Undo() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.Whole {
		c.store.replaced = true
		return
	}
	for _, item := range c.Put {
		c.store.changed[item.Key] = struct{}{}
	}
	for _, key := range c.Deleted {
		c.store.changed[key] = struct{}{}
	}
}

// Load replaces everything by the items of a checkpoint. The history begins anew at the revision, and every watch ends
// with ErrGone.
func (s *Store) Load(revision uint64, items []Item) { s.replace(revision, items, false) }

// Replace does the same with items that no checkpoint has yet.
func (s *Store) Replace(revision uint64, items []Item) { s.replace(revision, items, s.persisted) }

func (s *Store) replace(revision uint64, items []Item, unsaved bool) {
	tables := map[string]*table{}
	for _, item := range items {
		t := tables[item.Key.Resource]
		if t == nil {
			t = newTable()
			tables[item.Key.Resource] = t
		}
		t.put(s.newEntry(item), t.get(item.Key))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables, s.revision = tables, revision
	s.changed, s.replaced = map[Key]struct{}{}, unsaved
	s.history = newHistory(s.history.maxCount, s.history.maxBytes, revision)
	s.endWatches()
	s.releaseWaiters()
}

// All returns every item, sorted by resource, namespace and name, and the revision at which they all are true.
func (s *Store) All() ([]Item, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Item
	for _, t := range s.tables {
		out = append(out, t.list("")...)
	}
	slices.SortFunc(out, func(a, b Item) int { return compareFull(a.Key, b.Key) })
	return out, s.revision
}

func compareFull(a, b Key) int {
	if c := strings.Compare(a.Resource, b.Resource); c != 0 {
		return c
	}
	return compareKeys(a, b)
}
