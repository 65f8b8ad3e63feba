package webhooks

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/apiserver/access"
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
	r := c.newRequest(ctx, a)
	seen := map[*hook]api.Object{} // what those saw that want to be asked again
	changed := false
	for _, h := range hooks {
		kind := h.match(r)
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
		kind := h.match(r)
		if before, ok := seen[h]; !ok || kind == nil || reflect.DeepEqual(before, a.Object) {
			continue
		}
		if _, err := c.mutate(ctx, a, r, h, kind); err != nil {
			return err
		}
	}
	return nil
}

// mutate asks one webhook and applies its patch.
func (c *Caller) mutate(ctx context.Context, a *store.Admission, r *request, h *hook, kind *api.Kind) (changed bool, err error) {
	answer, question, err := c.ask(ctx, r, h, kind)
	if err != nil || answer == nil || len(answer.Patch) == 0 {
		return false, err
	}
	if a.Object == nil {
		return false, failed(h, fmt.Errorf("%w: it wants to change an object that is deleted", errAnswer))
	}
	if r.shaped() {
		return false, failed(h, fmt.Errorf("%w: it wants to change the subresource %s, which cannot be done here", errAnswer, r.sub))
	}
	patched, err := apply(kind, question.Object.Raw, answer.Patch)
	if err != nil {
		return false, failed(h, err)
	}
	if patched.GetName() != r.name || patched.GetNamespace() != r.namespace {
		return false, failed(h, fmt.Errorf("%w: it wants to change the name of the object", errAnswer))
	}
	if kind.Default != nil {
		kind.Default(patched)
	}
	if kind.Stored != nil {
		if patched, err = kind.ToStored(patched); err != nil {
			return false, failed(h, err)
		}
	}
	a.Replace(patched)
	return true, nil
}

// apply makes of an object's JSON what a JSON patch (RFC 6902) says. Fields that the kind does not have are dropped.
func apply(kind *api.Kind, data, patch []byte) (api.Object, error) {
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	if len(operations) > maxOperations {
		return nil, fmt.Errorf("%w: its patch has more than %d operations", errAnswer, maxOperations)
	}
	if data, err = operations.Apply(data); err != nil {
		return nil, err
	}
	obj := kind.New()
	if custom.Of(kind) != nil {
		_, _, err = custom.Decoder{}.Decode(data, &kind.GVK, obj)
		return obj, err
	}
	err = json.Unmarshal(data, obj)
	return obj, err
}

// maxOperations bounds the work that one patch can ask for.
const maxOperations = 10000

// Validate asks the validating webhooks, all at a time. The first in their order that refuses has its say.
func (c *Caller) Validate(ctx context.Context, a *store.Admission) error {
	hooks := c.validating(a.Reader)
	if len(hooks) == 0 {
		return nil
	}
	return c.validate(ctx, c.newRequest(ctx, a), hooks, a.Sure)
}

// Connection is a stream or a proxied request that somebody wants to open.
type Connection struct {
	Kind            *api.Kind
	Subresource     string
	Namespace, Name string
	// Options are what the stream shall be, such as a PodExecOptions that knows its kind.
	Options runtime.Object
	Reader  store.Reader
	Hear    store.Hearer
}

// Connect asks the webhooks that want to hear of connections.
func (c *Caller) Connect(ctx context.Context, o Connection) error {
	mutating, validating := c.mutating(o.Reader), c.validating(o.Reader)
	if len(mutating)+len(validating) == 0 {
		return nil
	}
	r := &request{
		operation: store.OpConnect, as: o.Kind, sub: o.Subresource, namespace: o.Namespace, name: o.Name, options: o.Options,
		user: access.FromContext(ctx), reader: o.Reader, hear: o.Hear,
	}
	for _, h := range mutating {
		if kind := h.match(r); kind != nil {
			if _, _, err := c.ask(ctx, r, h, kind); err != nil {
				return err
			}
		}
	}
	return c.validate(ctx, r, validating, func() error { return nil })
}

// asking is a call under way.
type asking struct {
	hook     *hook
	question *admissionv1.AdmissionReview
	answer   *admissionv1.AdmissionReview
	err      error
}

func (c *Caller) validate(ctx context.Context, r *request, hooks []*hook, sure func() error) error {
	var all []*asking
	for _, h := range hooks {
		kind := h.match(r)
		if kind == nil {
			continue
		}
		if err := sure(); err != nil {
			return err
		}
		question, err := r.review(h, kind)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		all = append(all, &asking{hook: h, question: question})
	}
	var calls sync.WaitGroup
	for _, one := range all {
		calls.Go(func() { one.answer, one.err = c.call(ctx, r, one.hook, one.question) })
	}
	calls.Wait()
	for _, one := range all {
		if _, err := c.judge(ctx, r, one); err != nil {
			return err
		}
	}
	return nil
}

// ask asks one webhook. The answer is nil if the webhook could not be asked and the request passes all the same.
func (c *Caller) ask(ctx context.Context, r *request, h *hook, kind *api.Kind) (*admissionv1.AdmissionResponse, *admissionv1.AdmissionRequest, error) {
	question, err := r.review(h, kind)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	one := &asking{hook: h, question: question}
	one.answer, one.err = c.call(ctx, r, h, question)
	answer, err := c.judge(ctx, r, one)
	return answer, question.Request, err
}

// judge makes of a call what becomes of the request.
func (c *Caller) judge(ctx context.Context, r *request, one *asking) (*admissionv1.AdmissionResponse, error) {
	h, err := one.hook, one.err
	if err == nil {
		err = check(one.question, one.answer, h.mutates)
	}
	switch {
	case err != nil && h.ignores() && ctx.Err() == nil:
		c.cfg.Logger.Warn("an admission webhook could not be asked; the request passes", "webhook", h.Name, "error", err)
		r.hear.Note("failed-open."+h.typeName()+".webhook.admission.k8s.io/"+h.Name, h.Name)
		return nil, nil
	case err != nil:
		return nil, failed(h, err)
	}
	response := one.answer.Response
	r.heard(h, response)
	if !response.Allowed {
		return nil, denied(h.Name, response.Result)
	}
	return response, nil
}

// failed is the error of a request whose webhook could not be asked, in upstream's words.
func failed(h *hook, err error) error {
	return apierrors.NewInternalError(fmt.Errorf("failed calling webhook %q: %w", h.Name, err))
}
