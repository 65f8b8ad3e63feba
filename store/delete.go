package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// Delete removes an object or begins its end. The result is its last or its terminating state: whoever must know which
// asks Reader().Get. Nil options mean the kind's own way.
//
// A pod that is bound to a node gets a deletion time, and is removed by a second Delete without grace once its device says
// that it has stopped. An object with finalizers gets a deletion time, and is removed by the Update that takes the last one
// away. The propagation policy becomes a finalizer that the garbage collector works off: "orphan" or "foregroundDeletion".
func (c *Client) Delete(ctx context.Context, key Key, opts *metav1.DeleteOptions, more ...Option) (api.Object, error) {
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	t, err := c.target(key)
	if err != nil {
		return nil, err
	}
	for range maxAttempts {
		obj, err := c.confirmed(ctx, t, func() (api.Object, error) { return c.delete(ctx, t, opts, makeOptions(more)) })
		if !isConflict(err) {
			return obj, err
		}
		if ctx.Err() != nil {
			return nil, proposeError(t, "delete", ctx.Err())
		}
	}
	return nil, staleError(t)
}

// delete makes one attempt; a *ConflictError says that another write came between.
func (c *Client) delete(ctx context.Context, t *target, opts *metav1.DeleteOptions, o options) (api.Object, error) {
	item, obj, whole, err := t.deletable()
	if err != nil {
		return nil, err
	}
	if err := checkPreconditions(t, obj, opts.Preconditions); err != nil {
		return nil, err
	}
	o.dryRun = o.dryRun || len(opts.DryRun) > 0
	a := c.admission(t, &Admission{Operation: OpDelete, Old: obj.DeepCopyObject().(api.Object)}, o)
	defer a.end()
	for _, all := range [][]Admitter{c.admit, c.review} {
		if err := ask(ctx, all, t, a); err != nil {
			return nil, err
		}
	}
	if t.kind.PrepareDelete != nil && obj.GetDeletionTimestamp() == nil {
		t.kind.PrepareDelete(obj, c.now())
	}
	changed, stays := c.terminate(t.kind, obj, opts)
	if o.dryRun || stays && !changed {
		return obj, nil
	}
	op, others := Op{Key: t.key, Expect: item.Revision}, a.ops
	if !stays {
		others = append(others, c.gone(t, obj)...)
	}
	if stays {
		if !whole {
			return nil, apierrors.NewInternalError(fmt.Errorf("store: %s: %w: it has finalizers", t.key, ErrSealed))
		}
		if op.Value, err = t.encode(obj); err != nil {
			return nil, err
		}
	}
	revision, err := t.propose(ctx, op, others...)
	if err != nil {
		return nil, updateError(t, err)
	}
	obj.SetResourceVersion(FormatRevision(revision))
	return obj, nil
}

// deletable reads the stored object as a copy of our own. Of one that this server cannot decrypt there is the readable metadata, which is enough to
// remove it: otherwise whoever lost a key could not replace what was encrypted with it.
func (t *target) deletable() (item Item, obj api.Object, whole bool, err error) {
	item, ok := t.store.Get(t.key)
	if !ok {
		return item, nil, false, apierrors.NewNotFound(t.resource(), t.key.Name)
	}
	obj, err = t.store.Decode(item)
	if err == nil {
		return item, obj, true, nil
	}
	if !errors.Is(err, ErrSealed) {
		return item, nil, false, apierrors.NewInternalError(err)
	}
	obj = t.kind.New()
	if err := obj.Unmarshal(item.Value); err != nil {
		return item, nil, false, apierrors.NewInternalError(err)
	}
	obj.SetResourceVersion(FormatRevision(item.Revision))
	return item, obj, false, nil
}

func checkPreconditions(t *target, obj api.Object, want *metav1.Preconditions) error {
	if want == nil {
		return nil
	}
	if want.UID != nil && *want.UID != obj.GetUID() {
		return uidError(t, *want.UID, obj.GetUID())
	}
	if want.ResourceVersion != nil && *want.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(t.resource(), t.key.Name, &preconditionError{*want.ResourceVersion, obj.GetResourceVersion()})
	}
	return nil
}

type preconditionError struct{ want, have string }

func (e *preconditionError) Error() string {
	return "Precondition failed: ResourceVersion in precondition: " + strconv.Quote(e.want) +
		", ResourceVersion in object meta: " + strconv.Quote(e.have)
}

// terminate edits obj into its terminating form and reports whether that changed anything, and whether the object stays
// for now.
func (c *Client) terminate(kind *api.Kind, obj api.Object, opts *metav1.DeleteOptions) (changed, stays bool) {
	changed = setPropagation(kind, obj, opts)
	grace := gracePeriod(obj, opts)
	if at := obj.GetDeletionTimestamp(); at != nil {
		changed = c.shorten(obj, *at, grace, opts) || changed
	} else if grace > 0 || heldBack(obj) {
		c.markTerminating(obj, grace)
		changed = true
	}
	left := obj.GetDeletionGracePeriodSeconds()
	return changed, heldBack(obj) || left != nil && *left > 0
}

func (c *Client) markTerminating(obj api.Object, grace int64) {
	at := metav1.NewTime(c.timestamp().Add(time.Duration(grace) * time.Second))
	obj.SetDeletionTimestamp(&at)
	switch o := obj.(type) { // these end when what is in them has gone
	case *corev1.Namespace:
		o.Status.Phase = corev1.NamespaceTerminating
		return
	case *apiextensionsv1.CustomResourceDefinition:
		return
	}
	obj.SetDeletionGracePeriodSeconds(&grace)
	if generation := obj.GetGeneration(); generation > 0 {
		obj.SetGeneration(generation + 1)
	}
}

// shorten applies a second deletion, which may only bring the end nearer.
func (c *Client) shorten(obj api.Object, at metav1.Time, grace int64, opts *metav1.DeleteOptions) bool {
	old := obj.GetDeletionGracePeriodSeconds()
	if old == nil || *old == 0 || opts.GracePeriodSeconds == nil && grace > 0 || grace >= *old {
		return false
	}
	nearer := metav1.NewTime(at.Add(time.Duration(grace-*old) * time.Second))
	obj.SetDeletionTimestamp(&nearer)
	obj.SetDeletionGracePeriodSeconds(&grace)
	return true
}

// gracePeriod is how long an object is given to stop by itself: nothing but a pod that runs somewhere needs any time.
func gracePeriod(obj api.Object, opts *metav1.DeleteOptions) int64 {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	switch {
	case opts.GracePeriodSeconds != nil:
		grace = *opts.GracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	if grace < 0 {
		return 1
	}
	return grace
}

// setPropagation writes the options' propagation policy into the finalizers; without a policy they stay as they are, or say
// what the kind says.
func setPropagation(kind *api.Kind, obj api.Object, opts *metav1.DeleteOptions) bool {
	var want string
	switch {
	case opts.PropagationPolicy != nil:
		switch *opts.PropagationPolicy {
		case metav1.DeletePropagationOrphan:
			want = metav1.FinalizerOrphanDependents
		case metav1.DeletePropagationForeground:
			want = metav1.FinalizerDeleteDependents
		}
	case opts.OrphanDependents != nil: //nolint:staticcheck // old clients still send it
		if *opts.OrphanDependents { //nolint:staticcheck
			want = metav1.FinalizerOrphanDependents
		}
	case kind.OrphanByDefault && !slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents):
		want = metav1.FinalizerOrphanDependents
	default:
		return false
	}
	older := obj.GetFinalizers()
	newer := slices.DeleteFunc(slices.Clone(older), func(f string) bool {
		return f != want && (f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents)
	})
	if want != "" && !slices.Contains(newer, want) {
		newer = append(newer, want)
	}
	if slices.Equal(older, newer) {
		return false
	}
	obj.SetFinalizers(newer)
	return true
}
