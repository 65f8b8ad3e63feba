package fieldmanager

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/shoal-edge/shoal/api"
)

var errAtomic = errors.New("may not mutate atomic arrays, maps or structs")

// Merge merges a part of an object of a kind into the whole; see Manager.Merge.
func (m *Managers) Merge(kind *api.Kind, object, part map[string]any) (map[string]any, error) {
	manager, err := m.For(kind, "")
	if err != nil {
		return nil, err
	}
	return manager.Merge(object, part)
}

// Merge merges a part of an object into the whole by the schema of its kind, as apply does, but for who owns what. A part that names a list or map that can only be
// replaced as a whole is refused: what it does not say would be lost.
func (m *Manager) Merge(object, part map[string]any) (map[string]any, error) {
	typedOf := func(content map[string]any, gvk schema.GroupVersionKind, options ...typed.ValidationOptions) (*typed.TypedValue, error) {
		u := &unstructured.Unstructured{Object: content}
		u.SetGroupVersionKind(gvk)
		return m.types.ObjectToTyped(u, options...)
	}
	patch, err := typedOf(part, m.kind.gvk)
	if err != nil {
		return nil, err
	}
	if atomics := atomicsIn(nil, patch.Schema(), patch.TypeRef(), patch.AsValue()); len(atomics) > 0 {
		return nil, fmt.Errorf("%w: %s", errAtomic, strings.Join(atomics, ", "))
	}
	live, err := typedOf(object, m.kind.gvk, typed.AllowDuplicates)
	if err != nil {
		return nil, err
	}
	merged, err := live.Merge(patch)
	if err != nil {
		return nil, err
	}
	content, ok := merged.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("fieldmanager: an object is a %T", merged.AsValue().Unstructured())
	}
	return content, nil
}

// atomicsIn finds the atomic lists and maps of a value.
func atomicsIn(path fieldpath.Path, s *smd.Schema, t smd.TypeRef, v value.Value) (found []string) {
	atom, ok := s.Resolve(t)
	switch {
	case !ok:
	case v.IsMap() && atom.Map != nil:
		if atom.Map.ElementRelationship == smd.Atomic {
			found = append(found, path.String())
		}
		v.AsMap().Iterate(func(key string, inner value.Value) bool {
			if f, ok := atom.FindField(key); ok {
				found = append(found, atomicsIn(append(path.Copy(), fieldpath.PathElement{FieldName: &key}), s, f.Type, inner)...)
			}
			return true
		})
	case v.IsList() && atom.List != nil:
		if atom.List.ElementRelationship == smd.Atomic {
			found = append(found, path.String())
		}
		for i := range v.AsList().Length() {
			found = append(found, atomicsIn(append(path.Copy(), fieldpath.PathElement{Index: &i}), s, atom.List.ElementType, v.AsList().At(i))...)
		}
	}
	return found
}
