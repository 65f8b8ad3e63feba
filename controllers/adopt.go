package controllers

import (
	"context"
	"errors"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// strays knows the objects of one resource that no controller owns, by namespace, so that looking for some to adopt costs
// nothing when there are none.
type strays struct {
	mu    sync.Mutex
	names map[string]map[string]bool
}

// reader notes who owns each object. It adds the owner's key to a loop; where there is no owner, stray tells who might adopt.
func (s *strays) reader(ownerKind, ownerResource string, l *loop, stray func(namespace string, labels map[string]string)) reader {
	return reader{
		relist: func() {
			s.mu.Lock()
			s.names = map[string]map[string]bool{}
			s.mu.Unlock()
		},
		changed: func(c *change) {
			meta := c.metadata()
			owner := metav1.GetControllerOfNoCopy(meta)
			s.note(c.Item.Key, owner == nil && !c.deleted() && meta.DeletionTimestamp == nil)
			if owner != nil && owner.Kind == ownerKind {
				l.add(key(ownerResource, meta.Namespace, owner.Name))
			} else if owner == nil && !c.deleted() {
				stray(meta.Namespace, meta.Labels)
			}
		},
	}
}

func (s *strays) note(k store.Key, stray bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := s.names[k.Namespace]
	switch {
	case stray && names == nil:
		s.names[k.Namespace] = map[string]bool{k.Name: true}
	case stray:
		names[k.Name] = true
	case names != nil:
		if delete(names, k.Name); len(names) == 0 {
			delete(s.names, k.Namespace)
		}
	}
}

func (s *strays) in(namespace string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.names[namespace]))
	for name := range s.names[namespace] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// errKeep says that an object needs no change of its owner after all.
var errKeep = errors.New("nothing to change")

// claim returns the objects of an owner that its selector matches. It lets go of those that do not match any more, and
// adopts strays that do, unless the owner is being deleted.
func claim[T any, P interface {
	*T
	api.Object
}](ctx context.Context, c *Controllers, s *strays, owner api.Object, selector labels.Selector) ([]*T, error) {
	var claimed []*T
	kind := api.KindFor(owner)
	for _, object := range store.ListBy[T, P](c.reader, store.OwnerIndex, string(owner.GetUID())) {
		if selector.Matches(labels.Set(P(object).GetLabels())) {
			claimed = append(claimed, object)
		} else if owner.GetDeletionTimestamp() == nil {
			if err := release(ctx, c, P(object), owner.GetUID()); err != nil {
				return nil, err
			}
		}
	}
	if owner.GetDeletionTimestamp() != nil || selector.Empty() {
		return claimed, nil
	}
	for _, name := range s.in(owner.GetNamespace()) {
		object, ok := store.Get[T, P](c.reader, owner.GetNamespace(), name)
		if !ok || !selector.Matches(labels.Set(P(object).GetLabels())) {
			continue
		}
		adopted, err := c.adopt(ctx, P(object), owner, *metav1.NewControllerRef(owner, kind.GVK))
		if err != nil {
			return nil, err
		}
		if adopted != nil {
			claimed = append(claimed, (*T)(adopted.(P)))
		}
	}
	return claimed, nil
}

func release(ctx context.Context, c *Controllers, object api.Object, owner types.UID) error {
	_, err := c.client.Modify(ctx, store.KeyOf(c.reader, object), "", func(current api.Object) error {
		refs := slices.DeleteFunc(current.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner })
		current.SetOwnerReferences(refs)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// adopt makes owner the controller of a stray. The result is nil when the stray is none any more.
func (c *Controllers) adopt(ctx context.Context, object, owner api.Object, ref metav1.OwnerReference) (api.Object, error) {
	adopted, err := c.client.Modify(ctx, store.KeyOf(c.reader, object), "", func(current api.Object) error {
		if current.GetUID() != object.GetUID() || current.GetDeletionTimestamp() != nil || metav1.GetControllerOfNoCopy(current) != nil {
			return errKeep
		}
		if item, ok := c.reader.Get(store.KeyOf(c.reader, owner)); !ok || !stillThere(item, owner.GetUID()) {
			return errKeep
		}
		current.SetOwnerReferences(append(current.GetOwnerReferences(), ref))
		return nil
	})
	if errors.Is(err, errKeep) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	return adopted, err
}

func stillThere(item store.Item, uid types.UID) bool {
	meta := metaOf(item.Value)
	return meta.UID == uid && meta.DeletionTimestamp == nil
}
