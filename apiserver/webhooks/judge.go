package webhooks

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
)

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
