package api

import (
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// strategy joins a served type V to upstream's internal type I, on which upstream's validation is written, and says what
// is prepared and checked on create, update and status update. Its fields may be nil: then nothing is done.
type strategy[V, I any] struct {
	in  func(*V, *I, conversion.Scope) error
	out func(*I, *V, conversion.Scope) error

	create func(newer *I)
	update func(newer, older *I)
	status func(newer, older *I)

	validate       func(newer *I) field.ErrorList
	validateUpdate func(newer, older *I) field.ErrorList
	validateStatus func(newer, older *I) field.ErrorList

	// parts are further subresources that write a part of the object, by name.
	parts map[string]part[I]

	warn func(newer, older *I) []string
}

// part is what a subresource prepares and checks.
type part[I any] struct {
	prepare  func(newer, older *I)
	validate func(newer, older *I) field.ErrorList
}

// object is the pointer to a served type.
type object[V any] interface {
	*V
	Object
}

// install makes the strategy the one of kind k.
func install[V, I any, P object[V]](k *Kind, s strategy[V, I]) *Kind {
	toV := func(o Object) *V { return (*V)(o.(P)) }
	k.PrepareCreate = func(o Object) { s.rewrite(toV(o), nil, func(n, _ *I) { call1(s.create, n) }) }
	k.PrepareUpdate = func(n, o Object) {
		n.SetGeneration(o.GetGeneration())
		s.rewrite(toV(n), toV(o), func(n, o *I) { call2(s.update, n, o) })
		keepSystemMetadata(n, o)
	}
	k.Validate = func(o Object) field.ErrorList {
		return s.check(toV(o), nil, func(n, _ *I) field.ErrorList { return s.validate(n) })
	}
	k.ValidateUpdate = func(n, o Object) field.ErrorList { return s.check(toV(n), toV(o), s.validateUpdate) }
	if s.validateStatus != nil {
		k.PrepareStatus = func(n, o Object) {
			n.SetGeneration(o.GetGeneration())
			s.rewrite(toV(n), toV(o), func(n, o *I) { call2(s.status, n, o) })
			keepSystemMetadata(n, o)
		}
		k.ValidateStatus = func(n, o Object) field.ErrorList { return s.check(toV(n), toV(o), s.validateStatus) }
	}
	for name, p := range s.parts {
		if k.Parts == nil {
			k.Parts = map[string]Part{}
		}
		k.Parts[name] = Part{
			Prepare: func(n, o Object) {
				n.SetGeneration(o.GetGeneration())
				s.rewrite(toV(n), toV(o), p.prepare)
				keepSystemMetadata(n, o)
			},
			Validate: func(n, o Object) field.ErrorList { return s.check(toV(n), toV(o), p.validate) },
		}
	}
	if s.warn != nil {
		k.Warn = func(n, o Object) []string {
			var older *V
			if o != nil {
				older = toV(o)
			}
			in, io, err := s.internal(toV(n), older)
			if err != nil {
				return nil
			}
			return s.warn(in, io)
		}
	}
	return k
}

// internal converts both objects; a nil older stays nil. The results share memory with the arguments.
func (s strategy[V, I]) internal(newer, older *V) (n, o *I, err error) {
	n = new(I)
	if err := s.in(newer, n, nil); err != nil {
		return nil, nil, err
	}
	if older != nil {
		o = new(I)
		if err := s.in(older, o, nil); err != nil {
			return nil, nil, err
		}
	}
	return n, o, nil
}

// rewrite lets f change newer in its internal form. The round trip itself also settles fields that exist twice, such as a
// pod's serviceAccount. An object that does not convert is left as it is: check reports it.
func (s strategy[V, I]) rewrite(newer, older *V, f func(n, o *I)) {
	n, o, err := s.internal(newer, older)
	if err != nil {
		return
	}
	f(n, o)
	var v V
	if err := s.out(n, &v, nil); err == nil {
		*newer = v
	}
}

func (s strategy[V, I]) check(newer, older *V, f func(n, o *I) field.ErrorList) field.ErrorList {
	n, o, err := s.internal(newer, older)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return f(n, o)
}

// keepSystemMetadata puts back what no update may take away. An update without a resourceVersion is one of whatever is
// there, so it takes the older one's: validation wants to see one.
func keepSystemMetadata(newer, older Object) {
	if newer.GetResourceVersion() == "" {
		newer.SetResourceVersion(older.GetResourceVersion())
	}
	if newer.GetUID() == "" {
		newer.SetUID(older.GetUID())
	}
	if t := older.GetCreationTimestamp(); !t.IsZero() {
		newer.SetCreationTimestamp(t)
	}
	if t := older.GetDeletionTimestamp(); !t.IsZero() {
		newer.SetDeletionTimestamp(t)
	}
	if g := older.GetDeletionGracePeriodSeconds(); g != nil && newer.GetDeletionGracePeriodSeconds() == nil {
		newer.SetDeletionGracePeriodSeconds(g)
	}
}

func call1[I any](f func(*I), n *I) {
	if f != nil {
		f(n)
	}
}

func call2[I any](f func(n, o *I), n, o *I) {
	if f != nil {
		f(n, o)
	}
}
