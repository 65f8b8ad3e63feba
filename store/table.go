package store

import (
	"slices"
	"strings"
)

// entry is one stored object and the places where the indexes hold it.
type entry struct {
	item  Item
	index []indexed
}

type indexed struct{ name, value string }

// table holds the objects of one resource, sorted by namespace and name.
type table struct {
	entries sorted
	indexes map[indexed][]*entry
}

func newTable() *table { return &table{indexes: map[indexed][]*entry{}} }

func compareKeys(a, b Key) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

func find(entries []*entry, key Key) (int, bool) {
	return slices.BinarySearchFunc(entries, key, func(e *entry, k Key) int { return compareKeys(e.item.Key, k) })
}

func insert(entries []*entry, e *entry) []*entry {
	// Objects are loaded in order, and names often count up: the end is the likeliest place.
	if n := len(entries); n == 0 || compareKeys(entries[n-1].item.Key, e.item.Key) < 0 {
		return append(entries, e)
	}
	at, found := find(entries, e.item.Key)
	if found {
		entries[at] = e
		return entries
	}
	return slices.Insert(entries, at, e)
}

func remove(entries []*entry, key Key) []*entry {
	at, found := find(entries, key)
	if !found {
		return entries
	}
	return slices.Delete(entries, at, at+1)
}

func (t *table) get(key Key) *entry {
	if t == nil {
		return nil
	}
	return t.entries.get(key)
}

// put stores an entry in the place of its predecessor, which may be nil.
func (t *table) put(e, older *entry) {
	if older != nil {
		t.unindex(older)
	}
	t.entries.put(e)
	for _, at := range e.index {
		t.indexes[at] = insert(t.indexes[at], e)
	}
}

func (t *table) delete(e *entry) {
	t.unindex(e)
	t.entries.delete(e.item.Key)
}

func (t *table) unindex(e *entry) {
	for _, at := range e.index {
		if left := remove(t.indexes[at], e.item.Key); len(left) > 0 {
			t.indexes[at] = left
		} else {
			delete(t.indexes, at)
		}
	}
}

// list returns the items of one namespace, or all of them for the empty namespace.
func (t *table) list(namespace string) []Item {
	if t == nil || t.entries.count == 0 {
		return nil
	}
	var out []Item
	if namespace == "" {
		out = make([]Item, 0, t.entries.count)
	}
	t.entries.from(Key{Namespace: namespace}, func(item Item) bool {
		if namespace != "" && item.Key.Namespace != namespace {
			return false
		}
		out = append(out, item)
		return true
	})
	return out
}

func items(entries []*entry) []Item {
	if len(entries) == 0 {
		return nil
	}
	out := make([]Item, len(entries))
	for i, e := range entries {
		out[i] = e.item
	}
	return out
}
