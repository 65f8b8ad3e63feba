package store

import (
	"fmt"
	"slices"
)

// ListAt lists as List would have done at a revision: the changes since are taken back. It returns ErrGone when the history does not
// reach back to it. The revision must have been applied.
func (s *Store) ListAt(resource, namespace string, revision uint64) ([]Item, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if floor := s.history.floor(resource); revision < floor {
		return nil, fmt.Errorf("%w (asked for %d, oldest is %d)", ErrGone, revision, floor)
	}
	before := map[Key]*Event{} // the first change after the revision tells what was there
	for i := s.history.after(revision); i < s.history.count; i++ {
		e := s.history.at(i)
		key := e.Item.Key
		if _, later := before[key]; !later && key.Resource == resource && (namespace == "" || key.Namespace == namespace) {
			before[key] = e
		}
	}
	list := s.tables[resource].list(namespace)
	if len(before) == 0 {
		return list, nil
	}
	list = slices.DeleteFunc(list, func(item Item) bool { return before[item.Key] != nil })
	for key, e := range before {
		if e.Type != Added {
			list = append(list, Item{Key: key, Revision: e.PrevRevision, Value: e.Prev})
		}
	}
	slices.SortFunc(list, func(a, b Item) int { return compareKeys(a.Key, b.Key) })
	return list, nil
}
