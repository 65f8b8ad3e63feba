package fieldmanager

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/shoal-edge/shoal/api"
)

// fresh tracks the write that most objects see, their creation. Nobody else owns anything yet, so who creates owns what the object
// has and an empty one has not; upstream's way to the same entry converts the empty object anew each time, and packs and unpacks
// the entry on the way.
type fresh struct {
	types   typeConverter
	version string
	empty   *typed.TypedValue
	filter  fieldpath.Filter // of what the write cannot own, or nil
	nobodys *fieldpath.Set
}

func newFresh(types typeConverter, kind *kindConverter, filter fieldpath.Filter) (*fresh, error) {
	empty, err := types.ObjectToTyped(kind.named(kind.create()), typed.AllowDuplicates)
	if err != nil {
		return nil, err
	}
	nobodys := fieldpath.NewSet(fieldpath.MakePathOrDie("apiVersion"), fieldpath.MakePathOrDie("kind"), fieldpath.MakePathOrDie("metadata"))
	for _, field := range []string{
		"name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion",
	} {
		nobodys.Insert(fieldpath.MakePathOrDie("metadata", field))
	}
	return &fresh{types: types, version: kind.gvk.GroupVersion().String(), empty: empty, filter: filter, nobodys: nobodys}, nil
}

// track reports whether it could.
func (f *fresh) track(obj api.Object, manager string) bool {
	whole, err := f.types.viewOf(obj)
	if err != nil {
		return false
	}
	differs, err := f.empty.Compare(whole)
	if err != nil {
		return false
	}
	differs = differs.FilterFields(f.filter)
	owned := differs.Added.Union(differs.Modified).Difference(f.nobodys)
	if owned.Empty() {
		obj.SetManagedFields(nil)
		return true
	}
	fields, err := owned.ToJSON()
	if err != nil {
		return false
	}
	entry := metav1.ManagedFieldsEntry{
		Manager: cmp.Or(manager, "unknown"), Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: f.version,
		Time: &metav1.Time{Time: time.Now().UTC()}, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{},
	}
	entry.FieldsV1.SetRawBytes(fields)
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{entry})
	return true
}
