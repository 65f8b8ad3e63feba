package webhooks

import (
	"context"
	"fmt"
	"reflect"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// Mutate asks the mutating webhooks, one after the other, and makes the changes that they want.
//
// When one of them has changed the object, settle is called, which is to let the server's own admission see what came of it, and those that
// want to are asked once more if the object has changed since.
func (c *Caller) Mutate(ctx context.Context, a *store.Admission, settle func() error) error {
	hooks := c.mutating(a.Reader)
	if len(hooks) == 0 {
		return nil
	}
	r := matching.Of(ctx, a, c.cfg.Scale)
	seen := map[*hook]api.Object{} // what those saw that want to be asked again
	changed := false
	for _, h := range hooks {
		kind, err := c.match(ctx, r, h)
		if err != nil {
			return err
		}
		if kind == nil {
			continue
		}
		if err := a.Sure(); err != nil {
			return err
		}
		did, err := c.mutate(ctx, a, r, h, kind)
		if err != nil {
			return err
		}
		changed = changed || did
		if h.reinvoke && a.Object != nil {
			seen[h] = a.Object.DeepCopyObject().(api.Object)
		}
	}
	if !changed {
		return nil
	}
	if err := settle(); err != nil {
		return err
	}
	for _, h := range hooks {
		if before, ok := seen[h]; !ok || reflect.DeepEqual(before, a.Object) {
			continue
		}
		kind, err := c.match(ctx, r, h)
		if err != nil {
			return err
		}
		if kind == nil {
			continue
		}
		if _, err := c.mutate(ctx, a, r, h, kind); err != nil {
			return err
		}
	}
	return nil
}

// mutate asks one webhook and applies its patch.
func (c *Caller) mutate(ctx context.Context, a *store.Admission, r *matching.Request, h *hook, kind *api.Kind) (changed bool, err error) {
	answer, question, err := c.ask(ctx, r, h, kind)
	if err != nil || answer == nil || len(answer.Patch) == 0 {
		return false, err
	}
	if a.Object == nil {
		return false, failed(h, fmt.Errorf("%w: it wants to change an object that is deleted", errAnswer))
	}
	if r.Shaped() {
		return false, failed(h, fmt.Errorf("%w: it wants to change the subresource %s, which cannot be done here", errAnswer, r.Sub))
	}
	data, err := apply(question.Object.Raw, answer.Patch)
	if err != nil {
		return false, failed(h, err)
	}
	patched, err := matching.Read(kind, data)
	if err != nil {
		return false, failed(h, err)
	}
	if patched.GetName() != r.Name || patched.GetNamespace() != r.Namespace {
		return false, failed(h, fmt.Errorf("%w: it wants to change the name of the object", errAnswer))
	}
	a.Replace(patched)
	return true, nil
}

// apply makes of an object's JSON what a JSON patch (RFC 6902) says.
func apply(data, patch []byte) ([]byte, error) {
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	if len(operations) > maxOperations {
		return nil, fmt.Errorf("%w: its patch has more than %d operations", errAnswer, maxOperations)
	}
	return operations.Apply(data)
}

// maxOperations bounds the work that one patch can ask for.
const maxOperations = 10000
