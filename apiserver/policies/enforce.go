//go:build cel

package policies

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/expressions"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// Enforcer enforces policies. It is safe for concurrent use.
type Enforcer struct {
	cfg   Config
	known known
}

// New returns an enforcer.
func New(cfg Config) *Enforcer { return &Enforcer{cfg: cfg} }

// Validate refuses a write that a policy denies.
func (e *Enforcer) Validate(ctx context.Context, a *store.Admission) error {
	policies := e.known.policies(a.Reader, validating)
	if len(policies) == 0 {
		return nil
	}
	return e.enforce(ctx, matching.Of(ctx, a, e.cfg.Scale), policies)
}

// Admit refuses what a policy denies of what the store never sees.
func (e *Enforcer) Admit(ctx context.Context, r *matching.Request) error {
	return e.enforce(ctx, r, e.known.policies(r.Reader, validating))
}

// verdict is a failure and whose it is.
type verdict struct {
	expressions.Failure
	policy  *policy
	binding string // empty: the policy itself is wrong
}

func (v *verdict) String() string {
	with := ""
	if v.binding != "" {
		with = fmt.Sprintf(" with binding '%s'", v.binding)
	}
	return fmt.Sprintf("%s '%s'%s denied request: %s", v.policy.kind, v.policy.name, with, v.Message)
}

// outcome is what all policies together have to say.
type outcome struct {
	denied  []verdict
	audited []audited
	notes   []note
}

// audited is the form in which the audit log has a failure, which is upstream's.
type audited struct {
	Message string                                     `json:"message"`
	Policy  string                                     `json:"policy"`
	Binding string                                     `json:"binding"`
	Index   int                                        `json:"expressionIndex"`
	Actions []admissionregistrationv1.ValidationAction `json:"validationActions"`
}

// note is what the audit log shall say, by several bindings perhaps.
type note struct {
	key    string
	values []string
}

func (o *outcome) note(key, value string) {
	i := slices.IndexFunc(o.notes, func(n note) bool { return n.key == key })
	if i < 0 {
		i = len(o.notes)
		o.notes = append(o.notes, note{key: key})
	}
	if !slices.Contains(o.notes[i].values, value) {
		o.notes[i].values = append(o.notes[i].values, value)
	}
}

func (e *Enforcer) enforce(ctx context.Context, r *matching.Request, policies []*policy) error {
	var o outcome
	for _, p := range policies {
		var subject *expressions.Subject
		wrong := func(binding string, err error) {
			o.denied = append(o.denied, verdict{expressions.Failure{Message: err.Error()}, p, binding})
		}
		e.each(r, p, wrong, func(b *binding, kind *api.Kind, params runtime.Object) {
			if subject == nil {
				var err error
				if subject, err = expressions.NewSubject(r, kind, e.cfg.Authorizer); err != nil {
					wrong(b.name, fmt.Errorf("failed to configure binding: %w", err))
					return
				}
			}
			o.evaluate(ctx, r, p, b, subject, params)
		})
	}
	return o.end(r)
}

func (o *outcome) evaluate(ctx context.Context, r *matching.Request, p *policy, b *binding, s *expressions.Subject, params runtime.Object) {
	failures, annotations := p.tests.Evaluate(ctx, s, params)
	for _, f := range failures {
		for _, action := range b.actions {
			switch action {
			case admissionregistrationv1.Deny:
				o.denied = append(o.denied, verdict{f, p, b.name})
			case admissionregistrationv1.Audit:
				o.audited = append(o.audited, audited{f.Message, p.name, b.name, f.Index, b.actions})
			case admissionregistrationv1.Warn:
				r.Hear.Warn(fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", p.name, b.name, f.Message))
			}
		}
	}
	for _, a := range annotations {
		o.note(p.name+"/"+a.Key, a.Value)
	}
}

// end writes down what the audit log shall say and refuses what was denied.
func (o *outcome) end(r *matching.Request) error {
	for _, n := range o.notes {
		r.Hear.Note(n.key, strings.Join(n.values, ", "))
	}
	if len(o.audited) > 0 {
		const most = 50
		data, err := json.Marshal(o.audited[:min(len(o.audited), most)])
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		r.Hear.Note("validation.policy.admission.k8s.io/validation_failure", string(data))
	}
	if len(o.denied) == 0 {
		return nil
	}
	first := o.denied[0]
	return denied(r, first.String(), first.Reason)
}

// codes are the statuses of the reasons that a policy may give.
var codes = map[metav1.StatusReason]int32{
	metav1.StatusReasonForbidden: http.StatusForbidden, metav1.StatusReasonUnauthorized: http.StatusUnauthorized,
	metav1.StatusReasonRequestEntityTooLarge: http.StatusRequestEntityTooLarge, metav1.StatusReasonInvalid: http.StatusUnprocessableEntity,
}

func denied(r *matching.Request, message string, reason metav1.StatusReason) error {
	if reason == "" {
		reason = metav1.StatusReasonInvalid
	}
	err := apierrors.NewForbidden(r.As.GVR().GroupResource(), nameOf(r), errors.New(message))
	err.ErrStatus.Reason, err.ErrStatus.Code = reason, codes[reason]
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: message})
	return err
}

// nameOf is what a request's object is called, which a new one's may be left to the server.
func nameOf(r *matching.Request) string {
	if r.Name == "" {
		return "Unknown"
	}
	return r.Name
}
