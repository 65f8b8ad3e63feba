// Package fieldmanager owns the answer to "whose is this field": metadata.managedFields, and the merge of what several
// clients apply. The rules are upstream's own, from apimachinery and structured-merge-diff; the package gives them the schema
// of the served kinds and says which fields a write cannot own.
package fieldmanager

import (
	"fmt"
	"sync"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// Managers has the field manager of each kind and subresource, made when it is first asked for.
type Managers struct {
	mu  sync.Mutex
	all map[place]made
}

// place is where an object is written: by itself, or by way of a subresource.
type place struct {
	gvk schema.GroupVersionKind
	sub string
}

// made is a manager and the kind that it is of: a kind that is defined at run time may be defined anew.
type made struct {
	of *api.Kind
	*Manager
}

// New returns Managers.
func New() *Managers { return &Managers{all: map[place]made{}} }

// For returns the manager of a kind; sub is empty, or the subresource that is written. The subresource scale is an object of
// another kind, which the manager then manages.
func (m *Managers) For(kind *api.Kind, sub string) (*Manager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := place{kind.GVK, sub}
	if found := m.all[at]; found.of == kind {
		return found.Manager, nil
	}
	manager, err := newManager(kind, sub)
	if err != nil {
		return nil, fmt.Errorf("fieldmanager: %s: %w", kind.Resource, err)
	}
	m.all[at] = made{kind, manager}
	return manager, nil
}

// Manager tracks and merges the writes of one kind, or of one of its subresources.
type Manager struct {
	kind   *kindConverter
	types  typeConverter
	fields *managedfields.FieldManager
	fresh  *fresh // nil for subresources
}

func newManager(kind *api.Kind, sub string) (*Manager, error) {
	schemas, err := schemas()
	if err != nil {
		return nil, err
	}
	k := newKindConverter(kind)
	if sub == "scale" {
		k = &kindConverter{
			gvk: autoscalingv1.SchemeGroupVersion.WithKind("Scale"), create: func() api.Object { return &autoscalingv1.Scale{} },
		}
	}
	gv := k.gvk.GroupVersion()
	var reset map[fieldpath.APIVersion]fieldpath.Filter
	if filter := resetFilter(kind, sub); filter != nil {
		reset = map[fieldpath.APIVersion]fieldpath.Filter{fieldpath.APIVersion(gv.String()): filter}
	}
	types := typeConverter{parser: schemas}
	if v := custom.Of(kind); v != nil && sub != "scale" {
		own, err := customType(v)
		if err != nil {
			return nil, err
		}
		types.own = &own
	}
	fields, err := managedfields.NewDefaultFieldManager(types, k, k, k, k.gvk, gv, sub, reset)
	if err != nil {
		return nil, err
	}
	m := &Manager{kind: k, types: types, fields: fields}
	if sub == "" {
		m.fresh, err = newFresh(types, k, reset[fieldpath.APIVersion(gv.String())])
	}
	return m, err
}

// Track notes in newer's metadata which fields a write of it by manager owns. Live is the object before the write, or nil; both
// have their defaults. A write never fails for this: of one that cannot be tracked the entries stay as they were.
func (m *Manager) Track(newer, live api.Object, manager string) {
	if live == nil {
		if m.fresh != nil && len(newer.GetManagedFields()) == 0 && m.fresh.track(m.kind.named(newer), manager) {
			return
		}
		live = m.kind.create()
	}
	m.fields.UpdateNoErrors(m.kind.named(live), m.kind.named(newer), manager)
}

// Apply merges what a manager applies into live, which may be nil, and returns the result. Fields that the manager applied
// before and does not any more go, unless somebody else owns them. Others' fields are conflicts, unless it is forced.
func (m *Manager) Apply(live api.Object, applied runtime.Object, manager string, force bool) (api.Object, error) {
	if live == nil {
		live = m.kind.create()
	}
	merged, err := m.fields.Apply(m.kind.named(live), applied, manager, force)
	if err != nil {
		return nil, err
	}
	return merged.(api.Object), nil // it is a copy of live, or has been given its type
}
