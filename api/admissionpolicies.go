package api

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	admissionv1defaults "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"
)

func validatingAdmissionPolicies() *Kind {
	return install[admissionv1.ValidatingAdmissionPolicy](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicy"),
		Resource:      "validatingadmissionpolicies",
		Singular:      "validatingadmissionpolicy",
		Categories:    []string{"api-extensions"},
		Subresources:  []string{"status"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} },
		Columns: []Column{
			nameColumn(), integer("Validations", "Validations indicates the number of validation rules defined in this configuration"),
			text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"), ageColumn(),
		},
	}, strategy[admissionv1.ValidatingAdmissionPolicy, admissionregistration.ValidatingAdmissionPolicy]{
		in:       admissionv1defaults.Convert_v1_ValidatingAdmissionPolicy_To_admissionregistration_ValidatingAdmissionPolicy,
		out:      admissionv1defaults.Convert_admissionregistration_ValidatingAdmissionPolicy_To_v1_ValidatingAdmissionPolicy,
		defaults: admissionv1defaults.SetObjectDefaults_ValidatingAdmissionPolicy,
		row: func(p *admissionv1.ValidatingAdmissionPolicy, now time.Time) []any {
			params := "<unset>"
			if k := p.Spec.ParamKind; k != nil {
				params = k.APIVersion + "/" + k.Kind
			}
			return []any{p.Name, int64(len(p.Spec.Validations)), params, age(p, now)}
		},
		create: func(n *admissionregistration.ValidatingAdmissionPolicy) {
			n.Status, n.Generation = admissionregistration.ValidatingAdmissionPolicyStatus{}, 1
		},
		update: func(n, o *admissionregistration.ValidatingAdmissionPolicy) {
			n.Status, n.Generation = o.Status, nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *admissionregistration.ValidatingAdmissionPolicy) {
			n.Spec = o.Spec
			metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &o.ObjectMeta)
		},
		validate: func(n *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkPolicy(&n.Spec)...)
		},
		validateUpdate: func(n, o *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkPolicy(&n.Spec)...)
		},
		validateStatus: func(n, o *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
			return checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta)
		},
		declared: admissionv1defaults.Validate_ValidatingAdmissionPolicy,
		warn:     enforcedBy[admissionregistration.ValidatingAdmissionPolicy],
	})
}

func checkPolicy(s *admissionregistration.ValidatingAdmissionPolicySpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := oneOf(path.Child("failurePolicy"), s.FailurePolicy, admissionregistration.Fail, admissionregistration.Ignore)
	switch c, at := s.MatchConstraints, path.Child("matchConstraints"); {
	case c == nil:
		errs = append(errs, field.Required(at, ""))
	case len(c.ResourceRules) == 0:
		errs = append(errs, field.Required(at.Child("resourceRules"), ""))
	default:
		for i := range c.ResourceRules {
			errs = append(errs, checkRule(&c.ResourceRules[i].RuleWithOperations, at.Child("resourceRules").Index(i))...)
		}
	}
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const why = "validations or auditAnnotations must contain at least one item"
		errs = append(errs, field.Required(path.Child("validations"), why), field.Required(path.Child("auditAnnotations"), why))
	}
	for i, v := range s.Validations {
		if v.Expression == "" {
			errs = append(errs, field.Required(path.Child("validations").Index(i).Child("expression"), "expression is not specified"))
		}
	}
	return errs
}

func validatingAdmissionPolicyBindings() *Kind {
	return install[admissionv1.ValidatingAdmissionPolicyBinding](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicyBinding"),
		Resource:      "validatingadmissionpolicybindings",
		Categories:    []string{"api-extensions"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} },
		Columns: []Column{
			nameColumn(), text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
			text("ParamRef", "ParamRef indicates the param resource which sets the configuration param"), ageColumn(),
		},
	}, strategy[admissionv1.ValidatingAdmissionPolicyBinding, admissionregistration.ValidatingAdmissionPolicyBinding]{
		in:       admissionv1defaults.Convert_v1_ValidatingAdmissionPolicyBinding_To_admissionregistration_ValidatingAdmissionPolicyBinding,
		out:      admissionv1defaults.Convert_admissionregistration_ValidatingAdmissionPolicyBinding_To_v1_ValidatingAdmissionPolicyBinding,
		defaults: admissionv1defaults.SetObjectDefaults_ValidatingAdmissionPolicyBinding,
		row: func(b *admissionv1.ValidatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramName(b.Spec.ParamRef), age(b, now)}
		},
		create: func(n *admissionregistration.ValidatingAdmissionPolicyBinding) { n.Generation = 1 },
		update: func(n, o *admissionregistration.ValidatingAdmissionPolicyBinding) {
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		validate: func(n *admissionregistration.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkActions(&n.Spec)...)
		},
		validateUpdate: func(n, o *admissionregistration.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkActions(&n.Spec)...)
		},
		declared: admissionv1defaults.Validate_ValidatingAdmissionPolicyBinding,
		warn:     enforcedBy[admissionregistration.ValidatingAdmissionPolicyBinding],
	})
}

func checkActions(s *admissionregistration.ValidatingAdmissionPolicyBindingSpec) field.ErrorList {
	var errs field.ErrorList
	path, seen := field.NewPath("spec", "validationActions"), map[admissionregistration.ValidationAction]bool{}
	for i, action := range s.ValidationActions {
		errs = append(errs, oneOf(path.Index(i), &action, admissionregistration.Audit, admissionregistration.Deny, admissionregistration.Warn)...)
		if seen[action] {
			errs = append(errs, field.Duplicate(path.Index(i), action))
		}
		seen[action] = true
	}
	if seen[admissionregistration.Deny] && seen[admissionregistration.Warn] {
		errs = append(errs, field.Invalid(path, s.ValidationActions, "must not contain both Deny and Warn "+
			"(repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}

// paramName is the object that a binding takes its parameters from. One without a namespace may be of any, or of none.
func paramName(ref *admissionv1.ParamRef) string {
	switch {
	case ref == nil:
	case ref.Name != "":
		return orElse(ref.Namespace, "*") + "/" + ref.Name
	case ref.Selector != nil:
		return ref.Selector.String()
	}
	return "<unset>"
}
