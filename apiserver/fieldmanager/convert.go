package fieldmanager

import (
	"errors"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// typeConverter looks at objects as values that the schema describes, and back.
type typeConverter struct {
	*parser
	own *typed.ParseableType // of a kind that is defined at run time
}

func (c typeConverter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	t := c.own
	if t == nil {
		known := c.typeOf(obj.GetObjectKind().GroupVersionKind())
		t = &known
	}
	if o, ok := obj.(*custom.Object); ok {
		whole, err := o.Whole()
		if err != nil {
			return nil, err
		}
		return t.FromUnstructured(whole, opts...)
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return t.FromUnstructured(u.UnstructuredContent(), opts...)
	}
	return t.FromStructured(obj, opts...)
}

// viewOf is ObjectToTyped without a check against the schema, which the Go type of an object makes needless.
func (c typeConverter) viewOf(obj api.Object) (*typed.TypedValue, error) {
	if c.own != nil {
		return c.ObjectToTyped(obj, typed.AllowDuplicates)
	}
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, err
	}
	t := c.typeOf(obj.GetObjectKind().GroupVersionKind())
	return typed.AsTypedUnvalidated(v, t.Schema, t.TypeRef), nil
}

func (c typeConverter) TypedToObject(whole *typed.TypedValue) (runtime.Object, error) {
	content, ok := whole.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("fieldmanager: an object is a %T", whole.AsValue().Unstructured())
	}
	return &unstructured.Unstructured{Object: content}, nil
}

// kindConverter is what the library asks of a runtime.Scheme, for one kind: make an object in the version that is written, give
// one its Go type, fill in its defaults, and show it in the version that another entry speaks of.
type kindConverter struct {
	gvk      schema.GroupVersionKind
	create   func() api.Object
	defaults func(api.Object)
}

func newKindConverter(kind *api.Kind) *kindConverter {
	return &kindConverter{gvk: kind.GVK, create: kind.New, defaults: kind.Default}
}

// named tells an object its kind, by which the schema knows it.
func (k *kindConverter) named(obj api.Object) api.Object {
	obj.GetObjectKind().SetGroupVersionKind(k.gvk)
	return obj
}

func (k *kindConverter) New(schema.GroupVersionKind) (runtime.Object, error) {
	return k.named(k.create()), nil
}

func (k *kindConverter) Default(obj runtime.Object) {
	if k.defaults != nil {
		k.defaults(obj.(api.Object))
	}
}

// ConvertToVersion gives an object its Go type, in the version asked for. One that has it is not copied. Entries of a version
// that is not served, for which the library asks, are dropped upon the error.
func (k *kindConverter) ConvertToVersion(in runtime.Object, to runtime.GroupVersioner) (runtime.Object, error) {
	if to == k.gvk.GroupVersion() && in.GetObjectKind().GroupVersionKind() == k.gvk {
		return k.typed(in, k.create)
	}
	from, target := api.ByGVK(in.GetObjectKind().GroupVersionKind()), (*api.Kind)(nil)
	if gv, ok := to.(schema.GroupVersion); ok {
		target = api.ByGVK(gv.WithKind(k.gvk.Kind))
	}
	if from == nil || target == nil || from.Storage() != target.Storage() {
		return nil, runtime.NewNotRegisteredErrForTarget("shoal", reflect.TypeOf(in), to)
	}
	obj, err := k.typed(in, from.New)
	if err != nil {
		return nil, err
	}
	return between(from, target, obj)
}

// typed gives an object its Go type and keeps its name.
func (k *kindConverter) typed(in runtime.Object, create func() api.Object) (api.Object, error) {
	u, ok := in.(*unstructured.Unstructured)
	if !ok {
		return in.(api.Object), nil
	}
	out := create()
	if o, ok := out.(*custom.Object); ok {
		return o, o.FromWhole(u.UnstructuredContent())
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), out); err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(u.GroupVersionKind())
	return out, nil
}

// between brings an object of one version of a kind into another.
func between(from, to *api.Kind, obj api.Object) (api.Object, error) {
	var err error
	if from.Stored != nil && from != to {
		if obj, err = from.ToStored(obj); err != nil {
			return nil, err
		}
	}
	if to.Stored != nil && from != to {
		if obj, err = to.FromStored(obj); err != nil {
			return nil, err
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(to.GVK)
	return obj, nil
}

var errNotAsked = errors.New("fieldmanager: not a conversion between versions")

func (k *kindConverter) Convert(_, _, _ any) error { return errNotAsked }

func (k *kindConverter) ConvertFieldLabel(schema.GroupVersionKind, string, string) (string, string, error) {
	return "", "", errNotAsked
}
