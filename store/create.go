package store

import (
	"context"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/api"
)

// Generated names are a prefix and random characters; together they fit a DNS label.
const (
	maxGeneratedName = 63
	randomCharacters = 5
)

// Create stores a new object and returns it as stored. The argument is left as it is.
func (c *Client) Create(ctx context.Context, obj api.Object, opts ...Option) (api.Object, error) {
	o := makeOptions(opts)
	if obj.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	generated := obj.GetName() == "" && obj.GetGenerateName() != ""
	for attempt := 1; ; attempt++ {
		created, err := c.create(ctx, obj, o)
		if generated && attempt < maxAttempts && apierrors.IsAlreadyExists(err) {
			continue
		}
		return created, err
	}
}

// create makes an attempt with one name.
func (c *Client) create(ctx context.Context, obj api.Object, o options) (api.Object, error) {
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj = obj.DeepCopyObject().(api.Object)
		obj.SetName(generateName(obj.GetGenerateName()))
	}
	t, err := c.targetOf(obj)
	if err != nil {
		return nil, err
	}
	t.as = o.as
	for range maxAttempts {
		made, err := c.confirmed(ctx, t, func() (api.Object, error) {
			return c.createAt(ctx, t, obj.DeepCopyObject().(api.Object), o)
		})
		if !isConflict(err) {
			return made, err
		}
		if ctx.Err() != nil {
			return nil, proposeError(t, "create", ctx.Err())
		}
	}
	return nil, staleError(t)
}

// createAt owns obj and completes it. A *ConflictError says that something else was not as it was expected to be.
func (c *Client) createAt(ctx context.Context, t *target, obj api.Object, o options) (api.Object, error) {
	a := c.admission(t, &Admission{Operation: OpCreate, Object: obj}, o)
	defer a.end()
	if err := c.prepareCreate(ctx, t, a, o); err != nil {
		return nil, err
	}
	if _, exists := t.store.Get(t.key); exists {
		return nil, apierrors.NewAlreadyExists(t.resource(), t.key.Name)
	}
	if err := ask(ctx, c.review, t, a); err != nil {
		return nil, err
	}
	value, err := t.encodeTracked(obj, o)
	if err != nil || o.dryRun {
		return obj, err
	}
	revision, err := t.propose(ctx, Op{Key: t.key, Value: value, Expect: Absent}, a.ops...)
	switch {
	case isConflict(err) && !conflictOn(err, t.key):
		return nil, err
	case isConflict(err):
		return nil, apierrors.NewAlreadyExists(t.resource(), t.key.Name)
	case err != nil:
		return nil, proposeError(t, "create", err)
	}
	obj.SetResourceVersion(FormatRevision(revision))
	return obj, nil
}

func (c *Client) prepareCreate(ctx context.Context, t *target, a *Admission, o options) error {
	obj := a.Object
	if t.kind.Namespaced && t.key.Namespace == "" {
		return apierrors.NewBadRequest("an empty namespace may not be set during creation")
	}
	if !t.kind.Namespaced && t.key.Namespace != "" {
		return apierrors.NewBadRequest("namespace may not be set on a cluster-scoped object")
	}
	if t.kind.Default != nil {
		t.kind.Default(obj)
	}
	if o.track != nil {
		o.track(obj, nil)
	}
	id := types.UID(uuid.NewString())
	begin := func() {
		obj.SetUID(id)
		obj.SetCreationTimestamp(c.timestamp())
		obj.SetDeletionTimestamp(nil)
		obj.SetDeletionGracePeriodSeconds(nil)
		obj.SetSelfLink("")
		if t.kind.PrepareCreate != nil {
			t.kind.PrepareCreate(obj)
		}
	}
	begin()
	if err := ask(ctx, c.admit, t, a); err != nil {
		return err
	}
	if a.replaced {
		begin()
	}
	if len(c.admit) > 0 {
		if t.kind.Default != nil {
			t.kind.Default(obj) // what admission added has defaults too
		}
		if t.kind.Settle != nil {
			t.kind.Settle(obj)
		}
	}
	var errs field.ErrorList
	if validate := o.rules(t).Validate; validate != nil {
		errs = validate(obj)
	}
	if len(errs) == 0 && obj.GetName() == "" { // some kinds leave that to those who store them
		errs = append(errs, field.Required(field.NewPath("metadata", "name"), "name or generateName is required"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(t.kind.GVK.GroupKind(), obj.GetName(), errs)
	}
	return nil
}

func generateName(prefix string) string {
	if longest := maxGeneratedName - randomCharacters; len(prefix) > longest {
		prefix = prefix[:longest]
	}
	return prefix + rand.String(randomCharacters)
}
