package api

import (
	"reflect"
	"strings"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// strategy joins a served type V to upstream's internal type I, on which upstream's validation is written, and says what
// is prepared and checked on create, update and status update. Its fields may be nil: then nothing is done.
type strategy[V, I any] = hooks[*V, *I]

// hooks is a strategy by its pointers. The compiler makes its code once for all kinds, where it would make it for each anew
// if it were written for what they point to: that is more than a megabyte.
type hooks[V, I any] struct {
	in  func(V, I, conversion.Scope) error
	out func(I, V, conversion.Scope) error

	defaults func(V)
	fields   func(V) map[string]string
	row      func(v V, now time.Time) []any

	create func(newer I)
	update func(newer, older I)
	status func(newer, older I)
	settle func(newer I)

	validate       func(newer I) field.ErrorList
	validateUpdate func(newer, older I) field.ErrorList
	validateStatus func(newer, older I) field.ErrorList
	// declared are the checks that upstream generates from the type itself, and same says which of their paths are others
	// than those of the functions above.
	declared rules[V]
	same     []field.NormalizationRule

	// parts are further subresources that write a part of the object, by name.
	parts map[string]part[I]

	warn func(newer, older I) []string
}

// part is what a subresource prepares and checks.
type part[I any] struct {
	prepare  func(newer, older I)
	validate func(newer, older I) field.ErrorList
}

// object is the pointer to a served type.
type object[V any] interface {
	*V
	Object
}

// install makes the strategy the one of kind k, and fills in what nearly every kind has.
func install[V, I any, P object[V]](k *Kind, s strategy[V, I]) *Kind {
	k.New = func() Object { return P(new(V)) }
	return s.install(k)
}

func (s hooks[V, I]) install(k *Kind) *Kind {
	if k.Singular == "" {
		k.Singular = strings.ToLower(k.GVK.Kind)
	}
	if k.Verbs == nil {
		k.Verbs = crud()
	}
	if s.defaults != nil {
		k.Default = func(o Object) { s.defaults(s.typed(o)) }
	}
	if s.fields != nil {
		k.Fields = func(o Object) map[string]string { return s.fields(s.typed(o)) }
	}
	if s.row != nil {
		k.Row = func(o Object, now time.Time) []any { return s.row(s.typed(o), now) }
	}
	k.PrepareCreate = func(o Object) {
		s.rewrite(o, nil, func(n, _ I) {
			if s.create != nil {
				s.create(n)
			}
		})
	}
	if s.settle != nil {
		k.Settle = func(o Object) { s.rewrite(o, nil, func(n, _ I) { s.settle(n) }) }
	}
	k.PrepareUpdate = func(n, o Object) { s.prepare(n, o, s.update) }
	k.Validate = func(o Object) field.ErrorList {
		return s.check(creation(), o, nil, func(n, _ I) field.ErrorList { return s.validate(n) })
	}
	k.ValidateUpdate = func(n, o Object) field.ErrorList { return s.check(change(), n, o, s.validateUpdate) }
	if s.validateStatus != nil {
		k.PrepareStatus = func(n, o Object) { s.prepare(n, o, s.status) }
		k.ValidateStatus = func(n, o Object) field.ErrorList { return s.check(change("status"), n, o, s.validateStatus) }
	}
	for name, p := range s.parts {
		if k.Parts == nil {
			k.Parts = map[string]Part{}
		}
		k.Parts[name] = Part{
			Prepare:  func(n, o Object) { s.prepare(n, o, p.prepare) },
			Validate: func(n, o Object) field.ErrorList { return s.check(change(name), n, o, p.validate) },
		}
	}
	if s.warn != nil {
		k.Warn = func(n, o Object) []string {
			in, io, err := s.internal(n, o)
			if err != nil {
				return nil
			}
			return s.warn(in, io)
		}
	}
	return k
}

// typed is the object as what it is; nil stays nil.
func (s hooks[V, I]) typed(o Object) V {
	if o == nil {
		var none V
		return none
	}
	return any(o).(V)
}

// internal converts both objects; a nil older stays nil. The results share memory with the arguments.
func (s hooks[V, I]) internal(newer, older Object) (n, o I, err error) {
	n = fresh[I]()
	if err := s.in(s.typed(newer), n, nil); err != nil {
		return n, o, err
	}
	if older != nil {
		o = fresh[I]()
		err = s.in(s.typed(older), o, nil)
	}
	return n, o, err
}

// prepare lets f change an update of older; the generation stays unless f counts it up.
func (s hooks[V, I]) prepare(newer, older Object, f func(n, o I)) {
	newer.SetGeneration(older.GetGeneration())
	s.rewrite(newer, older, func(n, o I) {
		if f != nil {
			f(n, o)
		}
	})
	keepSystemMetadata(newer, older)
}

// rewrite lets f change newer in its internal form. The round trip itself also settles fields that exist twice, such as a
// pod's serviceAccount. An object that does not convert is left as it is: check reports it.
func (s hooks[V, I]) rewrite(newer, older Object, f func(n, o I)) {
	n, o, err := s.internal(newer, older)
	if err != nil {
		return
	}
	f(n, o)
	v := fresh[V]()
	if err := s.out(n, v, nil); err == nil {
		reflect.ValueOf(newer).Elem().Set(reflect.ValueOf(v).Elem())
	}
}

func (s hooks[V, I]) check(op operation.Operation, newer, older Object, f func(n, o I) field.ErrorList) field.ErrorList {
	n, o, err := s.internal(newer, older)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	errs := f(n, o)
	if s.declared == nil {
		return errs
	}
	return join(errs, s.declared, op, s.typed(newer), s.typed(older), s.same)
}

// fresh is a pointer to a zero value of what P, a pointer type, points to.
func fresh[P any]() P { return reflect.New(reflect.TypeFor[P]().Elem()).Interface().(P) }

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

// nextGeneration is the older generation, or the one after it when the spec has changed.
func nextGeneration(older int64, newSpec, oldSpec any) int64 {
	if apiequality.Semantic.DeepEqual(newSpec, oldSpec) {
		return older
	}
	return older + 1
}
