package api

import (
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyv1defaults "k8s.io/kubernetes/pkg/apis/policy/v1"
	"k8s.io/kubernetes/pkg/apis/policy/validation"
)

func podDisruptionBudgets() *Kind {
	return install[policyv1.PodDisruptionBudget](&Kind{
		GVK:           policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		Resource:      "poddisruptionbudgets",
		ShortNames:    []string{"pdb"},
		Namespaced:    true,
		Subresources:  []string{"status"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} },
		Columns: []Column{
			nameColumn(), text("Min Available", "The minimum number of pods that must be available."),
			text("Max Unavailable", "The maximum number of pods that may be unavailable."),
			integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."), ageColumn(),
		},
	}, strategy[policyv1.PodDisruptionBudget, policy.PodDisruptionBudget]{
		in:  policyv1defaults.Convert_v1_PodDisruptionBudget_To_policy_PodDisruptionBudget,
		out: policyv1defaults.Convert_policy_PodDisruptionBudget_To_v1_PodDisruptionBudget,
		row: func(b *policyv1.PodDisruptionBudget, now time.Time) []any {
			minimum, maximum := orNotApplicable(b.Spec.MinAvailable), orNotApplicable(b.Spec.MaxUnavailable)
			return []any{b.Name, minimum, maximum, int64(b.Status.DisruptionsAllowed), age(b, now)}
		},
		create: func(n *policy.PodDisruptionBudget) {
			n.Status, n.Generation = policy.PodDisruptionBudgetStatus{}, 1
			dropVersionLabel(n)
		},
		update: func(n, o *policy.PodDisruptionBudget) {
			n.Status, n.Generation = o.Status, nextGeneration(o.Generation, n.Spec, o.Spec)
			if !apiequality.Semantic.DeepEqual(n.Spec.Selector, o.Spec.Selector) {
				dropVersionLabel(n)
			}
		},
		status: func(n, o *policy.PodDisruptionBudget) { n.Spec = o.Spec },
		validate: func(n *policy.PodDisruptionBudget) field.ErrorList {
			return validation.ValidatePodDisruptionBudget(n, validation.PodDisruptionBudgetValidationOptions{})
		},
		validateUpdate: func(n, o *policy.PodDisruptionBudget) field.ErrorList {
			bad := o.Spec.Selector != nil &&
				len(metav1validation.ValidateLabelSelector(o.Spec.Selector, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
			return validation.ValidatePodDisruptionBudget(n, validation.PodDisruptionBudgetValidationOptions{AllowInvalidLabelValueInSelector: bad})
		},
		validateStatus: func(n, o *policy.PodDisruptionBudget) field.ErrorList {
			return validation.ValidatePodDisruptionBudgetStatusUpdate(n.Status, o.Status, field.NewPath("status"), policyv1.SchemeGroupVersion)
		},
		declared: policyv1defaults.Validate_PodDisruptionBudget,
	})
}

// dropVersionLabel removes from a selector the label by which upstream tells an empty selector of v1 from one of v1beta1,
// unless the selector is just that.
func dropVersionLabel(b *policy.PodDisruptionBudget) {
	s := b.Spec.Selector
	if !apiequality.Semantic.DeepEqual(s, policy.NonV1beta1MatchNoneSelector) &&
		!apiequality.Semantic.DeepEqual(s, policy.NonV1beta1MatchAllSelector) {
		policy.StripPDBV1beta1Label(s)
	}
}

func orNotApplicable(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}
