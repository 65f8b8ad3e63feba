package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// garbage deletes what has lost all its owners, and works off the two finalizers by which a deletion says what becomes of
// the dependents. The store's index finds those of the controlling owner; the few other references are kept here.
type garbage struct {
	c    *Controllers
	loop *loop

	mu         sync.Mutex
	dependents map[types.UID]map[store.Key]bool // by owners that do not control
}

func (c *Controllers) addGarbage() {
	g := &garbage{c: c, dependents: map[types.UID]map[store.Key]bool{}}
	g.loop = c.newLoop("garbage", 4, g.reconcile)
	for _, kind := range api.Kinds() {
		if kind.ClassOf("") == api.Volatile {
			continue // what lives in memory dies by its age
		}
		c.follow(kind.GroupResource(), "", reader{changed: g.note})
	}
	c.custom.readers = append(c.custom.readers, reader{changed: g.note})
}

// note decides from the metadata alone whether an object has to be looked at.
func (g *garbage) note(ch *change) {
	meta := ch.metadata()
	if ch.deleted() {
		g.remember(ch.Item.Key, nil, meta.OwnerReferences)
		for _, dependent := range g.of(meta.UID) {
			g.loop.add(dependent)
		}
		for _, ref := range meta.OwnerReferences {
			if k, ok := g.ownerKey(meta.Namespace, ref); ok {
				g.loop.add(k) // it may wait for this one
			}
		}
		return
	}
	var before *metav1.ObjectMeta
	if ch.Prev != nil && (len(meta.OwnerReferences) > 0 || meta.DeletionTimestamp != nil) {
		before = metaOf(ch.Prev)
	}
	if before == nil {
		before = &metav1.ObjectMeta{}
	}
	sameOwner := func(a, b metav1.OwnerReference) bool { return a.UID == b.UID }
	refsChanged := !slices.EqualFunc(meta.OwnerReferences, before.OwnerReferences, sameOwner)
	if refsChanged {
		g.remember(ch.Item.Key, meta.OwnerReferences, before.OwnerReferences)
	}
	for _, ref := range meta.OwnerReferences {
		if slices.ContainsFunc(before.OwnerReferences, func(b metav1.OwnerReference) bool { return b.UID == ref.UID && blocks(b) && !blocks(ref) }) {
			if k, ok := g.ownerKey(meta.Namespace, ref); ok {
				g.loop.add(k) // it waits for this one no longer
			}
		}
	}
	ending := meta.DeletionTimestamp != nil && len(meta.Finalizers) > 0 &&
		(before.DeletionTimestamp == nil || !slices.Equal(meta.Finalizers, before.Finalizers))
	if refsChanged || ending {
		g.loop.add(ch.Item.Key)
	}
	if ending && slices.Contains(meta.Finalizers, metav1.FinalizerDeleteDependents) {
		for _, dependent := range g.of(meta.UID) {
			g.loop.add(dependent)
		}
	}
}

// remember keeps the references that the store's index does not hold.
func (g *garbage) remember(k store.Key, refs, before []metav1.OwnerReference) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ref := range before {
		if set := g.dependents[ref.UID]; set != nil {
			if delete(set, k); len(set) == 0 {
				delete(g.dependents, ref.UID)
			}
		}
	}
	for _, ref := range refs {
		if ptr.Deref(ref.Controller, false) {
			continue
		}
		if g.dependents[ref.UID] == nil {
			g.dependents[ref.UID] = map[store.Key]bool{}
		}
		g.dependents[ref.UID][k] = true
	}
}

// of returns the dependents of an owner.
func (g *garbage) of(owner types.UID) []store.Key {
	var found []store.Key
	for _, kind := range g.c.kinds() {
		for _, item := range g.c.reader.ByIndex(kind.GroupResource(), store.OwnerIndex, string(owner)) {
			found = append(found, item.Key)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for k := range g.dependents[owner] {
		found = append(found, k)
	}
	return found
}

// ownerKey is where an owner is, if it is of a kind that is served.
func (g *garbage) ownerKey(namespace string, ref metav1.OwnerReference) (store.Key, bool) {
	version, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return store.Key{}, false
	}
	kind := g.c.kind(version.WithKind(ref.Kind))
	if kind == nil || kind.Namespaced && namespace == "" {
		return store.Key{}, false
	}
	if !kind.Namespaced {
		namespace = ""
	}
	return key(kind.Storage().GroupResource(), namespace, ref.Name), true
}

func (g *garbage) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	item, ok := g.c.reader.Get(k)
	if !ok {
		return 0, nil
	}
	meta := metaOf(item.Value)
	switch {
	case meta.DeletionTimestamp == nil:
		return 0, g.judge(ctx, k, meta)
	case slices.Contains(meta.Finalizers, metav1.FinalizerOrphanDependents):
		return 0, g.orphan(ctx, k, meta)
	case slices.Contains(meta.Finalizers, metav1.FinalizerDeleteDependents):
		return 0, g.deleteDependents(ctx, k, meta)
	}
	return 0, nil
}

// judge deletes an object that has no owner left. One that it cannot look up counts as there.
func (g *garbage) judge(ctx context.Context, k store.Key, meta *metav1.ObjectMeta) error {
	var lost []types.UID
	waiting := false
	for _, ref := range meta.OwnerReferences {
		owner, exists, known := g.owner(meta.Namespace, ref)
		switch {
		case known && !exists:
			lost = append(lost, ref.UID)
		case known && owner.DeletionTimestamp != nil && slices.Contains(owner.Finalizers, metav1.FinalizerDeleteDependents):
			lost, waiting = append(lost, ref.UID), true
		}
	}
	switch {
	case len(lost) == 0:
		return nil
	case len(lost) < len(meta.OwnerReferences):
		return g.drop(ctx, k, lost)
	}
	opts := metav1.NewPreconditionDeleteOptions(string(meta.UID))
	if waiting && g.blocking(meta.UID) > 0 {
		if g.inCircle(meta.UID) {
			if err := g.unblock(ctx, k); err != nil {
				return err
			}
		}
		opts.PropagationPolicy = ptr.To(metav1.DeletePropagationForeground)
	}
	_, err := g.c.client.Delete(ctx, k, opts)
	return ignoreGone(err)
}

// owner looks an owner up; known is false for kinds that are not served.
func (g *garbage) owner(namespace string, ref metav1.OwnerReference) (meta *metav1.ObjectMeta, exists, known bool) {
	k, ok := g.ownerKey(namespace, ref)
	if !ok {
		return nil, false, false
	}
	item, ok := g.c.reader.Get(k)
	if !ok {
		return nil, false, true
	}
	meta = metaOf(item.Value)
	return meta, meta.UID == ref.UID, true
}

// drop takes references to owners out of an object.
func (g *garbage) drop(ctx context.Context, k store.Key, owners []types.UID) error {
	_, err := g.c.client.Modify(ctx, k, "", func(object api.Object) error {
		object.SetOwnerReferences(slices.DeleteFunc(object.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
			return slices.Contains(owners, r.UID)
		}))
		return nil
	})
	return ignoreGone(err)
}

// orphan cuts the dependents loose, then lets the object go.
func (g *garbage) orphan(ctx context.Context, k store.Key, meta *metav1.ObjectMeta) error {
	for _, dependent := range g.of(meta.UID) {
		if err := g.drop(ctx, dependent, []types.UID{meta.UID}); err != nil {
			return fmt.Errorf("orphan %s: %w", dependent, err)
		}
	}
	return g.finish(ctx, k, meta.UID, metav1.FinalizerOrphanDependents)
}

// deleteDependents deletes the dependents and lets the object go when none is left that it has to wait for.
func (g *garbage) deleteDependents(ctx context.Context, k store.Key, meta *metav1.ObjectMeta) error {
	for _, dependent := range g.of(meta.UID) {
		item, ok := g.c.reader.Get(dependent)
		if !ok {
			continue
		}
		if dependentMeta := metaOf(item.Value); dependentMeta.DeletionTimestamp == nil {
			if err := g.judge(ctx, dependent, dependentMeta); err != nil {
				return fmt.Errorf("delete %s: %w", dependent, err)
			}
		}
	}
	if g.blocking(meta.UID) > 0 {
		return nil // the last one to go wakes us
	}
	return g.finish(ctx, k, meta.UID, metav1.FinalizerDeleteDependents)
}

// blocking counts the dependents that an owner's foreground deletion waits for.
func (g *garbage) blocking(owner types.UID) int {
	count := 0
	for _, dependent := range g.of(owner) {
		item, ok := g.c.reader.Get(dependent)
		if !ok {
			continue
		}
		for _, ref := range metaOf(item.Value).OwnerReferences {
			if ref.UID == owner && blocks(ref) {
				count++
			}
		}
	}
	return count
}

func blocks(ref metav1.OwnerReference) bool { return ptr.Deref(ref.BlockOwnerDeletion, false) }

// inCircle says whether an object whose owner waits for it may have to wait for that owner in turn: one of its own dependents is being
// deleted in the foreground. That is what Kubernetes goes by; it may be so without a circle, and then the owner only waits less.
func (g *garbage) inCircle(uid types.UID) bool {
	return slices.ContainsFunc(g.of(uid), func(k store.Key) bool {
		item, ok := g.c.reader.Get(k)
		if !ok {
			return false
		}
		meta := metaOf(item.Value)
		return meta.DeletionTimestamp != nil && slices.Contains(meta.Finalizers, metav1.FinalizerDeleteDependents)
	})
}

// unblock lets an object's owners go before it.
func (g *garbage) unblock(ctx context.Context, k store.Key) error {
	_, err := g.c.client.Modify(ctx, k, "", func(object api.Object) error {
		refs := slices.Clone(object.GetOwnerReferences())
		for i := range refs {
			refs[i].BlockOwnerDeletion = ptr.To(false)
		}
		object.SetOwnerReferences(refs)
		return nil
	})
	return ignoreGone(err)
}

// finish takes a finalizer away.
func (g *garbage) finish(ctx context.Context, k store.Key, uid types.UID, finalizer string) error {
	_, err := g.c.client.Modify(ctx, k, "", func(object api.Object) error {
		if object.GetUID() != uid {
			return errKeep
		}
		object.SetFinalizers(slices.DeleteFunc(object.GetFinalizers(), func(f string) bool { return f == finalizer }))
		return nil
	})
	return ignoreGone(err)
}

// ignoreGone takes it for done that an object is gone, or is another one by now.
func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || errors.Is(err, errKeep) {
		return nil
	}
	return err
}
