package api

import (
	"fmt"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// conversions join a further version V of a kind to its stored version S by way of upstream's internal type I.
type conversions[V, S, I any] = versionHooks[*V, *S, *I]

// versionHooks are conversions by their pointers; see hooks.
type versionHooks[V, S, I any] struct {
	gvk       schema.GroupVersionKind
	new       func() Object
	newList   func() runtime.Object
	defaults  func(V)
	in        func(V, I, conversion.Scope) error
	out       func(I, V, conversion.Scope) error
	storedIn  func(S, I, conversion.Scope) error
	storedOut func(I, S, conversion.Scope) error
}

// of is the stored kind in the other version. All but the names and the form of its objects is as in the stored one.
func (c versionHooks[V, S, I]) of(stored *Kind) *Kind {
	k := *stored
	k.GVK, k.New, k.NewList, k.Stored = c.gvk, c.new, c.newList, stored
	k.Default = nil
	if c.defaults != nil {
		k.Default = func(o Object) { c.defaults(any(o).(V)) }
	}
	k.ToStored = func(o Object) (Object, error) {
		if k.Default != nil {
			k.Default(o)
		}
		return converted(c.gvk, any(o).(V), c.in, c.storedOut)
	}
	k.FromStored = func(o Object) (Object, error) { return converted(c.gvk, any(o).(S), c.storedIn, c.out) }
	return &k
}

// converted brings an object from one version into another.
func converted[A, B, I any](gvk schema.GroupVersionKind, from A,
	in func(A, I, conversion.Scope) error, out func(I, B, conversion.Scope) error,
) (Object, error) {
	to, i := fresh[B](), fresh[I]()
	err := in(from, i, nil)
	if err == nil {
		err = out(i, to, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("api: convert %s: %w", gvk, err)
	}
	return any(to).(Object), nil
}
