package api

import (
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	admissionv1defaults "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"

	"github.com/shoal-edge/shoal/api/expression"
)

func mutatingAdmissionPolicies() *Kind {
	return install[admissionv1.MutatingAdmissionPolicy](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicy"),
		Resource:      "mutatingadmissionpolicies",
		Singular:      "mutatingadmissionpolicy",
		Categories:    []string{"api-extensions"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyList{} },
		Columns: []Column{
			nameColumn(), integer("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
			text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"), ageColumn(),
		},
	}, strategy[admissionv1.MutatingAdmissionPolicy, admissionregistration.MutatingAdmissionPolicy]{
		in:       admissionv1defaults.Convert_v1_MutatingAdmissionPolicy_To_admissionregistration_MutatingAdmissionPolicy,
		out:      admissionv1defaults.Convert_admissionregistration_MutatingAdmissionPolicy_To_v1_MutatingAdmissionPolicy,
		defaults: admissionv1defaults.SetObjectDefaults_MutatingAdmissionPolicy,
		row: func(p *admissionv1.MutatingAdmissionPolicy, now time.Time) []any {
			return []any{p.Name, int64(len(p.Spec.Mutations)), paramKind(p.Spec.ParamKind), age(p, now)}
		},
		create: func(n *admissionregistration.MutatingAdmissionPolicy) { n.Generation = 1 },
		update: func(n, o *admissionregistration.MutatingAdmissionPolicy) {
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		validate: func(n *admissionregistration.MutatingAdmissionPolicy) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkMutatingPolicy(&n.Spec)...)
		},
		validateUpdate: func(n, o *admissionregistration.MutatingAdmissionPolicy) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkMutatingPolicy(&n.Spec)...)
		},
		declared: admissionv1defaults.Validate_MutatingAdmissionPolicy,
		warn:     enforcedBy[admissionregistration.MutatingAdmissionPolicy],
	})
}

// paramKind is of which kind the parameters of a policy are.
func paramKind(k *admissionv1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}

func checkMutatingPolicy(s *admissionregistration.MutatingAdmissionPolicySpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := checkScope(s.FailurePolicy, s.ParamKind, s.MatchConstraints, path)
	errs = append(errs, checkMutated(s.MatchConstraints, path.Child("matchConstraints"))...)
	compiler, wrong := checkNamed(s.ParamKind != nil, s.MatchConditions, s.Variables, path)
	errs = append(errs, wrong...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(path.Child("mutations"), "mutations must contain at least one item"))
	}
	for i, m := range s.Mutations {
		errs = append(errs, checkMutation(compiler, &m, path.Child("mutations").Index(i))...)
	}
	at := path.Child("reinvocationPolicy")
	if s.ReinvocationPolicy == "" {
		return append(errs, field.Required(at, ""))
	}
	return append(errs, oneOf(at, &s.ReinvocationPolicy, admissionregistration.IfNeededReinvocationPolicy, admissionregistration.NeverReinvocationPolicy)...)
}

// checkMutated refuses rules about requests that have no object to change.
func checkMutated(m *admissionregistration.MatchResources, path *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	var errs field.ErrorList
	for _, rule := range m.ResourceRules {
		for _, o := range rule.RuleWithOperations.Operations {
			errs = append(errs, oneOf(path.Child("resourceRules", "operations"), &o, admissionregistration.Create, admissionregistration.Update)...)
		}
	}
	return errs
}

// checkMutation checks that a mutation says one thing, in the way that it says.
func checkMutation(c *expression.Compiler, m *admissionregistration.Mutation, path *field.Path) field.ErrorList {
	apply, patch := path.Child("applyConfiguration"), path.Child("jsonPatch")
	var errs field.ErrorList
	switch m.PatchType {
	case "":
		errs = append(errs, field.Required(path.Child("patchType"), ""))
	case admissionregistration.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			errs = append(errs, field.Required(patch, "must be specified when patchType is JSONPatch"))
		} else {
			errs = append(errs, checkPatch(c, expression.JSONPatch, m.JSONPatch.Expression, patch)...)
		}
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch"))
		}
	case admissionregistration.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			errs = append(errs, field.Required(apply, "must be specified when patchType is ApplyConfiguration"))
		} else {
			errs = append(errs, checkPatch(c, expression.Apply, m.ApplyConfiguration.Expression, apply)...)
		}
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(patch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration"))
		}
	default:
		errs = append(errs, oneOf(path.Child("patchType"), &m.PatchType,
			admissionregistration.PatchTypeApplyConfiguration, admissionregistration.PatchTypeJSONPatch)...)
	}
	return errs
}

func checkPatch(c *expression.Compiler, use expression.Use, text string, path *field.Path) field.ErrorList {
	at := path.Child("expression")
	if text = strings.TrimSpace(text); text == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return c.Check(use, "", text, at)
}

func mutatingAdmissionPolicyBindings() *Kind {
	return install[admissionv1.MutatingAdmissionPolicyBinding](&Kind{
		GVK:           admissionv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicyBinding"),
		Resource:      "mutatingadmissionpolicybindings",
		Categories:    []string{"api-extensions"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} },
		Columns: []Column{
			nameColumn(), text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
			text("ParamRef", "ParamRef indicates the param resource which sets the configuration param"), ageColumn(),
		},
	}, strategy[admissionv1.MutatingAdmissionPolicyBinding, admissionregistration.MutatingAdmissionPolicyBinding]{
		in:       admissionv1defaults.Convert_v1_MutatingAdmissionPolicyBinding_To_admissionregistration_MutatingAdmissionPolicyBinding,
		out:      admissionv1defaults.Convert_admissionregistration_MutatingAdmissionPolicyBinding_To_v1_MutatingAdmissionPolicyBinding,
		defaults: admissionv1defaults.SetObjectDefaults_MutatingAdmissionPolicyBinding,
		row: func(b *admissionv1.MutatingAdmissionPolicyBinding, now time.Time) []any {
			return []any{b.Name, b.Spec.PolicyName, paramName(b.Spec.ParamRef), age(b, now)}
		},
		create: func(n *admissionregistration.MutatingAdmissionPolicyBinding) { n.Generation = 1 },
		update: func(n, o *admissionregistration.MutatingAdmissionPolicyBinding) {
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		validate: func(n *admissionregistration.MutatingAdmissionPolicyBinding) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, nil), checkMutatingBinding(&n.Spec)...)
		},
		validateUpdate: func(n, o *admissionregistration.MutatingAdmissionPolicyBinding) field.ErrorList {
			return append(checkAdmissionMeta(&n.ObjectMeta, &o.ObjectMeta), checkMutatingBinding(&n.Spec)...)
		},
		declared: admissionv1defaults.Validate_MutatingAdmissionPolicyBinding,
		warn:     enforcedBy[admissionregistration.MutatingAdmissionPolicyBinding],
	})
}

func checkMutatingBinding(s *admissionregistration.MutatingAdmissionPolicyBindingSpec) field.ErrorList {
	errs := checkBound(s.PolicyName, s.ParamRef, s.MatchResources)
	if s.PolicyName == "" {
		errs = append(errs, field.Required(field.NewPath("spec", "policyName"), ""))
	}
	return append(errs, checkMutated(s.MatchResources, field.NewPath("spec", "matchResources"))...)
}
