package store

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/api"
)

// Subresources whose updates follow rules of their own, besides the Parts of a kind. Any other one writes the object that it
// is given, without the preparation and the validation of a user's update: binding sets what users may not, finalize too.
const (
	subNone   = ""
	subStatus = "status"
	subScale  = "scale"
)

// Update replaces an object. With a resourceVersion it fails on any change in between; without one the last write wins.
// The result is the object as stored; when nothing changed, nothing is written. Kinds that say so are created when absent.
func (c *Client) Update(ctx context.Context, obj api.Object, opts ...Option) (api.Object, error) {
	return c.UpdateSub(ctx, subNone, obj, opts...)
}

// UpdateStatus replaces the status of an object and nothing else.
func (c *Client) UpdateStatus(ctx context.Context, obj api.Object, opts ...Option) (api.Object, error) {
	return c.UpdateSub(ctx, subStatus, obj, opts...)
}

// UpdateSub replaces an object by way of a subresource: "status", "scale", "binding" or "finalize".
func (c *Client) UpdateSub(ctx context.Context, sub string, obj api.Object, opts ...Option) (api.Object, error) {
	t, err := c.targetOf(obj)
	if err != nil {
		return nil, err
	}
	unconditional := sub == subNone && obj.GetResourceVersion() == ""
	if _, exists := t.store.Get(t.key); unconditional && !exists && t.kind.CreateOnUpdate {
		return c.Create(ctx, obj, opts...)
	}
	if unconditional && t.kind.NeedsRevision {
		return nil, apierrors.NewInvalid(t.kind.GVK.GroupKind(), t.key.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update"),
		})
	}
	for attempt := 1; ; attempt++ {
		newer, err := c.confirmed(ctx, t, func() (api.Object, error) {
			return c.update(ctx, t, sub, obj.DeepCopyObject().(api.Object), makeOptions(opts))
		})
		if !isConflict(err) {
			return newer, err
		}
		if obj.GetResourceVersion() != "" && conflictOn(err, t.key) || attempt == maxAttempts {
			return nil, staleError(t)
		}
		if ctx.Err() != nil {
			return nil, proposeError(t, "update", ctx.Err())
		}
	}
}

// Modify reads an object, lets change edit it and writes it back by way of the subresource (empty for the object itself);
// when another write came between, it starts again. change may thus run several times.
func (c *Client) Modify(ctx context.Context, key Key, sub string, change func(api.Object) error, opts ...Option) (api.Object, error) {
	t, err := c.target(key)
	if err != nil {
		return nil, err
	}
	for range maxAttempts {
		newer, err := c.confirmed(ctx, t, func() (api.Object, error) {
			_, obj, err := t.current()
			if err != nil {
				return nil, err
			}
			if err := change(obj); err != nil {
				return nil, err
			}
			return c.update(ctx, t, sub, obj, makeOptions(opts))
		})
		if !isConflict(err) {
			return newer, err
		}
		if ctx.Err() != nil {
			return nil, proposeError(t, "update", ctx.Err())
		}
	}
	return nil, staleError(t)
}

// update owns newer and makes one attempt. It returns a *ConflictError when the object has another revision than newer says,
// or when another write came between.
func (c *Client) update(ctx context.Context, t *target, sub string, newer api.Object, o options) (api.Object, error) {
	item, older, err := t.current()
	if err != nil {
		return nil, err
	}
	if want := newer.GetResourceVersion(); want != "" && want != older.GetResourceVersion() {
		return nil, &ConflictError{Key: t.key, Have: item.Revision}
	}
	if want := newer.GetUID(); want != "" && want != older.GetUID() {
		return nil, uidError(t, want, older.GetUID())
	}
	a := c.admission(t, &Admission{Operation: OpUpdate, Subresource: sub, Object: newer, Old: older}, o)
	defer a.end()
	if err := c.prepareUpdate(ctx, t, a, o); err != nil {
		return nil, err
	}
	op := Op{Key: t.key, Expect: item.Revision}
	gone := finished(newer, older)
	if !gone {
		if op.Value, err = t.encodeTracked(newer, o); err != nil {
			return nil, err
		}
		if t.holds(item, op.Value) {
			return older, nil
		}
		if onlyTimes(newer.GetManagedFields(), older.GetManagedFields()) {
			same, err := t.encode(withManagedFields(newer, older.GetManagedFields()))
			if err == nil && t.holds(item, same) {
				return older, nil // that somebody wrote what was there already is no change
			}
		}
	}
	if o.dryRun {
		return newer, nil
	}
	others := a.ops
	if gone {
		others = c.gone(t, older)
	}
	revision, err := t.propose(ctx, op, others...)
	if err != nil {
		return nil, updateError(t, err)
	}
	newer.SetResourceVersion(FormatRevision(revision))
	return newer, nil
}

// updateError lets conflicts through, to be tried again, unless the object has gone.
func updateError(t *target, err error) error {
	var conflict *ConflictError
	switch {
	case !errors.As(err, &conflict):
		return proposeError(t, "update", err)
	case conflict.Have == Absent && conflict.Key == t.key:
		return apierrors.NewNotFound(t.resource(), t.key.Name)
	default:
		return err
	}
}

func (c *Client) prepareUpdate(ctx context.Context, t *target, a *Admission, o options) error {
	newer, older, sub := a.Object, a.Old, a.Subresource
	prepare, validate := t.kind.PrepareUpdate, o.rules(t).ValidateUpdate
	switch sub {
	case subNone, subScale:
		if t.kind.Default != nil {
			t.kind.Default(newer)
		}
	case subStatus:
		prepare, validate = t.kind.PrepareStatus, o.rules(t).ValidateStatus
		if prepare == nil {
			return apierrors.NewGenericServerResponse(404, "update", t.resource(), t.key.Name,
				fmt.Sprintf("%s has no subresource status", t.kind.Resource), 0, false)
		}
	default:
		if part, ok := t.kind.Parts[sub]; ok {
			prepare, validate = part.Prepare, part.Validate
			if t.kind.Default != nil {
				t.kind.Default(newer)
			}
			break
		}
		prepare, validate = nil, nil
		newer.SetGeneration(older.GetGeneration())
	}
	if o.track != nil {
		o.track(newer, older)
	}
	begin := func() {
		if prepare != nil {
			prepare(newer, older)
		}
		keepIdentity(newer, older)
	}
	begin()
	if err := ask(ctx, c.admit, t, a); err != nil {
		return err
	}
	if a.replaced {
		if t.kind.Default != nil && sub != subStatus {
			t.kind.Default(newer)
		}
		begin()
	}
	if validate != nil {
		if errs := validate(newer, older); len(errs) > 0 {
			return apierrors.NewInvalid(t.kind.GVK.GroupKind(), t.key.Name, errs)
		}
	}
	return ask(ctx, c.review, t, a)
}

// keepIdentity puts back what is not a client's to change, and what only a deletion changes. The resourceVersion is set
// because upstream's validation asks for one.
func keepIdentity(newer, older api.Object) {
	newer.SetUID(older.GetUID())
	newer.SetCreationTimestamp(older.GetCreationTimestamp())
	newer.SetDeletionTimestamp(older.GetDeletionTimestamp())
	newer.SetDeletionGracePeriodSeconds(older.GetDeletionGracePeriodSeconds())
	newer.SetSelfLink("")
	newer.SetResourceVersion(older.GetResourceVersion())
}

// onlyTimes reports whether the entries differ in when a manager wrote, and in nothing else.
func onlyTimes(newer, older []metav1.ManagedFieldsEntry) bool {
	if len(newer) == 0 || len(newer) != len(older) {
		return false
	}
	for i, n := range newer {
		n.Time = older[i].Time
		if !apiequality.Semantic.DeepEqual(n, older[i]) {
			return false
		}
	}
	return true
}

// withManagedFields is a copy of obj with other entries.
func withManagedFields(obj api.Object, entries []metav1.ManagedFieldsEntry) api.Object {
	c := obj.DeepCopyObject().(api.Object)
	c.SetManagedFields(entries)
	return c
}

// finished reports that an update takes the last reason away why a terminating object still exists.
func finished(newer, older api.Object) bool {
	if older.GetDeletionTimestamp() == nil || heldBack(newer) {
		return false
	}
	grace := older.GetDeletionGracePeriodSeconds()
	return (grace == nil || *grace == 0) && heldBack(older)
}

// heldBack reports whether finalizers keep an object from being removed.
func heldBack(obj api.Object) bool {
	if len(obj.GetFinalizers()) > 0 {
		return true
	}
	namespace, ok := obj.(*corev1.Namespace)
	return ok && len(namespace.Spec.Finalizers) > 0
}

// Reseal writes an object of a sensitive kind anew, unless it is sealed with the present key already. Nobody but the log sees
// a difference.
func (c *Client) Reseal(ctx context.Context, key Key) error {
	t, err := c.target(key)
	if err != nil {
		return err
	}
	for range maxAttempts {
		item, ok := t.store.Get(key)
		if !ok {
			return nil
		}
		stale, err := t.store.CheckSeal(item)
		if err != nil || !stale {
			return err
		}
		plain, err := t.store.Plain(item)
		if err != nil {
			return err
		}
		if _, err = t.propose(ctx, Op{Key: key, Value: plain, Expect: item.Revision}); !isConflict(err) {
			return err
		}
	}
	return staleError(t)
}
