package store

import (
	"strconv"

	"github.com/shoal-edge/shoal/api"
)

// Reader reads objects: a Store, or a Client's view over the durable and the volatile one.
type Reader interface {
	Get(key Key) (Item, bool)
	List(resource, namespace string) ([]Item, uint64)
	ByIndex(resource, index, value string) []Item
	KindFor(obj api.Object) *api.Kind
	Object(item Item) (api.Object, bool)
}

// typed is a pointer to T that is an api.Object; it is inferred from T.
type typed[T any] interface {
	*T
	api.Object
}

// Get returns one object as the caller's own copy.
func Get[T any, P typed[T]](r Reader, namespace, name string) (*T, bool) {
	kind := kindOf[T, P](r)
	item, ok := r.Get(Key{Resource: kind.GroupResource(), Namespace: namespace, Name: name})
	if !ok {
		return nil, false
	}
	obj, ok := r.Object(item)
	if !ok {
		return nil, false
	}
	return (*T)(obj.(P)), true
}

// List returns the objects of one namespace, or all of them for the empty one, sorted, as the caller's own copies.
func List[T any, P typed[T]](r Reader, namespace string) []*T {
	items, _ := r.List(kindOf[T, P](r).GroupResource(), namespace)
	return decodeAll[T, P](r, items)
}

// ListBy returns the objects that an index files under a value, sorted, as the caller's own copies.
func ListBy[T any, P typed[T]](r Reader, index, value string) []*T {
	return decodeAll[T, P](r, r.ByIndex(kindOf[T, P](r).GroupResource(), index, value))
}

// KeyOf is the key of an object of a kind in the reader's table.
func KeyOf(r Reader, obj api.Object) Key {
	kind := r.KindFor(obj)
	if kind == nil {
		return Key{}
	}
	return Key{Resource: kind.GroupResource(), Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// kindOf panics for a type that is not in the table: that is a mistake in the program, not in the data.
func kindOf[T any, P typed[T]](r Reader) *api.Kind {
	obj := P(new(T))
	if kind := r.KindFor(obj); kind != nil {
		return kind
	}
	panic("store: a type without a kind was read")
}

func decodeAll[T any, P typed[T]](r Reader, items []Item) []*T {
	out := make([]*T, 0, len(items))
	for _, item := range items {
		if obj, ok := r.Object(item); ok {
			out = append(out, (*T)(obj.(P)))
		}
	}
	return out
}

// Object decodes an item as Decode does. An item that does not decode is logged and not returned.
func (s *Store) Object(item Item) (api.Object, bool) {
	obj, err := s.Decode(item)
	if err != nil {
		s.logger.Error("an object that does not decode is skipped", "key", item.Key.String(), "error", err)
		return nil, false
	}
	return obj, true
}

// FormatRevision is a revision as a resourceVersion.
func FormatRevision(revision uint64) string { return strconv.FormatUint(revision, 10) }
