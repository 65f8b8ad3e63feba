package webhooks

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver/matching"
)

// errAnswer is an answer that says neither yes nor no.
var errAnswer = errors.New("webhook response is invalid")

// check refuses an answer that is none to the question.
func check(question, answer *admissionv1.AdmissionReview, mutates bool) error {
	got := answer.Response
	switch {
	case got == nil:
		return fmt.Errorf("%w: it has no response", errAnswer)
	case answer.APIVersion != question.APIVersion || answer.Kind != question.Kind:
		if strings.HasSuffix(question.APIVersion, "/v1beta1") && answer.APIVersion == "" {
			break // the old version did not ask for that
		}
		return fmt.Errorf("%w: expected %s, Kind=%s, got %s, Kind=%s", errAnswer, question.APIVersion, question.Kind, answer.APIVersion, answer.Kind)
	case got.UID != question.Request.UID:
		return fmt.Errorf("%w: expected response.uid=%q, got %q", errAnswer, question.Request.UID, got.UID)
	}
	switch {
	case len(got.Patch) == 0 && got.PatchType == nil:
		return nil
	case !mutates:
		return fmt.Errorf("%w: a validating webhook may not return a patch", errAnswer)
	case len(got.Patch) == 0:
		return fmt.Errorf("%w: response.patchType is set without response.patch", errAnswer)
	case got.PatchType == nil && strings.HasSuffix(question.APIVersion, "/v1"):
		return fmt.Errorf("%w: response.patch is set without response.patchType", errAnswer)
	case got.PatchType != nil && *got.PatchType != admissionv1.PatchTypeJSONPatch:
		return fmt.Errorf("%w: unsupported patch type %q", errAnswer, *got.PatchType)
	}
	return nil
}

// denied is the error of a request that a webhook refuses, in upstream's words.
func denied(name string, result *metav1.Status) error {
	status := metav1.Status{}
	if result != nil {
		status = *result
	}
	status.Code = max(status.Code, http.StatusBadRequest)
	if status.Status == "" || status.Status == metav1.StatusSuccess {
		status.Status = metav1.StatusFailure
	}
	by := fmt.Sprintf("admission webhook %q denied the request", name)
	switch {
	case status.Message != "":
		status.Message = by + ": " + status.Message
	case status.Reason != "":
		status.Message = by + ": " + string(status.Reason)
	default:
		status.Message = by + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// heard passes on what a webhook has to say of a request that it lets pass.
func (h *hook) heard(r *matching.Request, got *admissionv1.AdmissionResponse) {
	r.Hear.Warn(got.Warnings[:min(len(got.Warnings), maxWarnings)]...)
	keys := make([]string, 0, len(got.AuditAnnotations))
	for key := range got.AuditAnnotations {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		r.Hear.Note(h.Name+"/"+key, got.AuditAnnotations[key])
	}
}

// maxWarnings bounds what one webhook can put into the headers of an answer.
const maxWarnings = 32
