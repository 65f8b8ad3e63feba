package webhooks

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/matching"
)

// match finds in which version a webhook wants to see a request; nil if it does not.
func (c *Caller) match(ctx context.Context, r *matching.Request, h *hook) (*api.Kind, error) {
	kind := h.matcher.Match(r)
	if kind == nil || h.conditions == nil {
		return kind, nil
	}
	matches, err := h.conditions.Match(ctx, r, kind, c.cfg.Authorizer)
	switch {
	case err != nil:
		return nil, apierrors.NewForbidden(r.As.GVR().GroupResource(), r.Name, err)
	case !matches:
		return nil, nil
	}
	return kind, nil
}

// review is the question that one webhook is asked.
func (h *hook) review(r *matching.Request, kind *api.Kind) (*admissionv1.AdmissionReview, error) {
	q, err := r.Review(kind)
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: admissionv1.GroupName + "/" + h.reviewVersion()}, Request: q,
	}, err
}

// reviewVersion is the first version of AdmissionReview that the webhook knows and this package, too. Both have the same fields here.
func (h *hook) reviewVersion() string {
	for _, v := range h.AdmissionReviewVersions {
		if v == "v1" || v == "v1beta1" {
			return v
		}
	}
	return "v1" // validation wants one of them
}

// ask asks one webhook. The answer is nil if the webhook could not be asked and the request passes all the same.
func (c *Caller) ask(ctx context.Context, r *matching.Request, h *hook, kind *api.Kind) (*admissionv1.AdmissionResponse, *admissionv1.AdmissionRequest, error) {
	question, err := h.review(r, kind)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	one := &asking{hook: h, question: question}
	one.answer, one.err = c.call(ctx, r, h, question)
	answer, err := c.judge(ctx, r, one)
	return answer, question.Request, err
}

// judge makes of a call what becomes of the request.
func (c *Caller) judge(ctx context.Context, r *matching.Request, one *asking) (*admissionv1.AdmissionResponse, error) {
	h, err := one.hook, one.err
	if err == nil {
		err = check(one.question, one.answer, h.mutates)
	}
	switch {
	case err != nil && h.ignores() && ctx.Err() == nil:
		c.cfg.Logger.Warn("an admission webhook could not be asked; the request passes", "webhook", h.Name, "error", err)
		r.Hear.Note("failed-open."+h.typeName()+".webhook.admission.k8s.io/"+h.Name, h.Name)
		return nil, nil
	case err != nil:
		return nil, failed(h, err)
	}
	response := one.answer.Response
	h.heard(r, response)
	if !response.Allowed {
		return nil, denied(h.Name, response.Result)
	}
	return response, nil
}

// failed is the error of a request whose webhook could not be asked, in upstream's words.
func failed(h *hook, err error) error {
	return apierrors.NewInternalError(fmt.Errorf("failed calling webhook %q: %w", h.Name, err))
}
