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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

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
	policies := e.known.policies(a.Reader)
	if len(policies) == 0 {
		return nil
	}
	return e.enforce(ctx, matching.Of(ctx, a, e.cfg.Scale), policies)
}

// Connect refuses a connection that a policy denies.
func (e *Enforcer) Connect(ctx context.Context, r *matching.Request) error {
	return e.enforce(ctx, r, e.known.policies(r.Reader))
}

// verdict is a failure and whose it is.
type verdict struct {
	expressions.Failure
	policy, binding string // no binding: the policy itself is wrong
}

func (v *verdict) String() string {
	with := ""
	if v.binding != "" {
		with = fmt.Sprintf(" with binding '%s'", v.binding)
	}
	return fmt.Sprintf("ValidatingAdmissionPolicy '%s'%s denied request: %s", v.policy, with, v.Message)
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
		kind := p.matcher.Match(r)
		if kind == nil {
			continue
		}
		if p.err != nil {
			o.misconfigured(p, "", fmt.Errorf("failed to configure policy: %w", p.err))
			continue
		}
		var subject *expressions.Subject
		for _, b := range p.bindings {
			if b.matcher.Match(r) == nil {
				continue
			}
			params, err := e.params(r, p, b)
			if err == nil && subject == nil && len(params) > 0 {
				subject, err = expressions.NewSubject(r, kind, e.cfg.Authorizer)
			}
			if err != nil {
				o.misconfigured(p, b.Name, fmt.Errorf("failed to configure binding: %w", err))
				continue
			}
			for _, param := range params {
				o.evaluate(ctx, r, p, b, subject, param)
			}
		}
	}
	return o.end(r)
}

// misconfigured is the failure of a policy that cannot be evaluated at all.
func (o *outcome) misconfigured(p *policy, binding string, err error) {
	if f := p.spec.FailurePolicy; f == nil || *f != admissionregistrationv1.Ignore {
		o.denied = append(o.denied, verdict{expressions.Failure{Message: err.Error()}, p.name, binding})
	}
}

func (o *outcome) evaluate(ctx context.Context, r *matching.Request, p *policy, b *binding, s *expressions.Subject, params runtime.Object) {
	failures, annotations := p.compiled.Evaluate(ctx, s, params)
	for _, f := range failures {
		for _, action := range b.Spec.ValidationActions {
			switch action {
			case admissionregistrationv1.Deny:
				o.denied = append(o.denied, verdict{f, p.name, b.Name})
			case admissionregistrationv1.Audit:
				o.audited = append(o.audited, audited{f.Message, p.name, b.Name, f.Index, b.Spec.ValidationActions})
			case admissionregistrationv1.Warn:
				r.Hear.Warn(fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", p.name, b.Name, f.Message))
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
	name := r.Name
	if name == "" {
		name = "Unknown"
	}
	err := apierrors.NewForbidden(r.As.GVR().GroupResource(), name, errors.New(message))
	err.ErrStatus.Reason, err.ErrStatus.Code = reason, codes[reason]
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: message})
	return err
}

// params are the parameters of a policy that a binding names: a nil one if it takes none.
func (e *Enforcer) params(r *matching.Request, p *policy, b *binding) ([]runtime.Object, error) {
	of, ref := p.spec.ParamKind, b.Spec.ParamRef
	if of == nil || ref == nil {
		return []runtime.Object{nil}, nil
	}
	found, err := e.find(r, of, ref)
	if err != nil {
		return nil, err
	}
	if action := ref.ParameterNotFoundAction; len(found) == 0 && action != nil && *action == admissionregistrationv1.DenyAction {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	return found, nil
}

func (e *Enforcer) find(r *matching.Request, of *admissionregistrationv1.ParamKind, ref *admissionregistrationv1.ParamRef) ([]runtime.Object, error) {
	kind := e.cfg.Kind(schema.FromAPIVersionAndKind(of.APIVersion, of.Kind))
	if kind == nil {
		return nil, fmt.Errorf("paramKind kind `%v` not known", of.String())
	}
	namespace := ref.Namespace
	switch {
	case !kind.Namespaced && namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case kind.Namespaced && namespace == "":
		if namespace = r.Namespace; namespace == "" {
			return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
		}
	}
	resource := kind.Storage().GroupResource()
	var items []store.Item
	if ref.Name != "" {
		if item, ok := r.Reader.Get(store.Key{Resource: resource, Namespace: namespace, Name: ref.Name}); ok {
			items = append(items, item)
		}
	} else {
		items, _ = r.Reader.List(resource, namespace)
	}
	selected, err := metav1.LabelSelectorAsSelector(ref.Selector)
	if err != nil {
		return nil, err
	}
	var found []runtime.Object
	for _, item := range items {
		obj, ok := r.Reader.Object(item)
		if !ok || ref.Name == "" && !selected.Matches(labels.Set(obj.GetLabels())) {
			continue
		}
		shown, err := matching.Show(kind, obj)
		if err != nil {
			return nil, err
		}
		found = append(found, shown)
	}
	return found, nil
}
