package webhooks

import (
	"context"
	"fmt"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// Validate asks the validating webhooks, all at a time. The first in their order that refuses has its say.
func (c *Caller) Validate(ctx context.Context, a *store.Admission) error {
	hooks := c.validating(a.Reader)
	if len(hooks) == 0 {
		return nil
	}
	return c.validate(ctx, matching.Of(ctx, a, c.cfg.Scale), hooks, a.Sure)
}

// Admit asks the webhooks that want to hear of what the store never sees. It cannot be changed.
func (c *Caller) Admit(ctx context.Context, r *matching.Request) error {
	mutating, validating := c.mutating(r.Reader), c.validating(r.Reader)
	for _, h := range mutating {
		kind, err := c.match(ctx, r, h)
		if err != nil {
			return err
		}
		if kind == nil {
			continue
		}
		answer, _, err := c.ask(ctx, r, h, kind)
		if err != nil {
			return err
		}
		if answer != nil && len(answer.Patch) > 0 {
			return failed(h, fmt.Errorf("%w: it wants to change the subresource %s, which cannot be done here", errAnswer, r.Sub))
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

func (c *Caller) validate(ctx context.Context, r *matching.Request, hooks []*hook, sure func() error) error {
	var all []*asking
	for _, h := range hooks {
		kind, err := c.match(ctx, r, h)
		if err != nil {
			return err
		}
		if kind == nil {
			continue
		}
		if err := sure(); err != nil {
			return err
		}
		question, err := h.review(r, kind)
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
