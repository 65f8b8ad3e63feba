package webhooks

import (
	"context"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

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
