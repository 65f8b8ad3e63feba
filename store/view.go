package store

import (
	"slices"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// Reader reads objects of both state classes. Lists over all namespaces of a kind that has both are joined; their revision
// is the durable one. Away from the leader volatile objects are not seen.
func (c *Client) Reader() Reader { return view{c} }

// ReaderFor returns the one store that holds a kind's objects of a namespace. It fails for volatile ones away from the
// leader, with an API error.
func (c *Client) ReaderFor(kind *api.Kind, namespace string) (*Store, error) {
	if kind.ClassOf(namespace) == api.Durable {
		return c.durable, nil
	}
	t, err := c.target(Key{Resource: kind.Storage().GroupResource(), Namespace: namespace})
	if err != nil {
		return nil, err
	}
	return t.store, nil
}

// ListAt lists a kind's objects as they were at a revision of the store that ReaderFor returns. It fails with ErrGone when they are
// not known any more. Of a kind that has both state classes, the volatile objects are those of now.
func (c *Client) ListAt(kind *api.Kind, namespace string, revision uint64) ([]Item, error) {
	durable, volatile := view{c}.stores(kind.GroupResource(), namespace)
	if durable == nil {
		durable, volatile = volatile, nil
	}
	if durable == nil {
		return nil, ErrGone
	}
	list, err := durable.ListAt(kind.GroupResource(), namespace, revision)
	if err != nil || volatile == nil {
		return list, err
	}
	more, _ := volatile.List(kind.GroupResource(), namespace)
	return merge(list, more), nil
}

// Definitions returns the definitions of all custom kinds.
func (c *Client) Definitions() []*custom.Definition { return c.durable.Definitions() }

type view struct{ c *Client }

func (v view) KindFor(obj api.Object) *api.Kind    { return v.c.durable.KindFor(obj) }
func (v view) Object(item Item) (api.Object, bool) { return v.c.durable.Object(item) }

// stores returns the durable store, the volatile one, or both. Nil stands for one that is not needed or not there.
func (v view) stores(resource, namespace string) (durable, volatile *Store) {
	kind := v.c.durable.Kind(resource)
	if kind == nil || kind.Class == nil {
		return v.c.durable, nil
	}
	store, _, err := v.c.volatile()
	if err != nil {
		store = nil
	}
	if namespace == "" && kind.Namespaced {
		return v.c.durable, store
	}
	if kind.ClassOf(namespace) == api.Volatile {
		return nil, store
	}
	return v.c.durable, nil
}

func (v view) Get(key Key) (Item, bool) {
	durable, volatile := v.stores(key.Resource, key.Namespace)
	for _, s := range []*Store{durable, volatile} {
		if s == nil {
			continue
		}
		if item, ok := s.Get(key); ok {
			return item, true
		}
	}
	return Item{}, false
}

func (v view) List(resource, namespace string) ([]Item, uint64) {
	durable, volatile := v.stores(resource, namespace)
	switch {
	case volatile == nil && durable == nil:
		return nil, 0
	case volatile == nil:
		return durable.List(resource, namespace)
	case durable == nil:
		return volatile.List(resource, namespace)
	}
	items, revision := durable.List(resource, namespace)
	more, _ := volatile.List(resource, namespace)
	return merge(items, more), revision
}

func (v view) ByIndex(resource, index, value string) []Item {
	durable, volatile := v.stores(resource, "")
	items := durable.ByIndex(resource, index, value)
	if volatile != nil {
		items = merge(items, volatile.ByIndex(resource, index, value))
	}
	return items
}

func merge(a, b []Item) []Item {
	if len(a) == 0 {
		return b
	}
	all := append(a, b...)
	slices.SortFunc(all, func(x, y Item) int { return compareKeys(x.Key, y.Key) })
	return all
}
