package apiserver

import (
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateReview checks a question as upstream does; its own functions for that come with the whole of k8s.io/apiserver.
func validateReview(review runtime.Object) field.ErrorList {
	switch r := review.(type) {
	case *authorizationv1.SelfSubjectAccessReview:
		return append(validateOne(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes), emptyMeta(&r.ObjectMeta, false)...)
	case *authorizationv1.SubjectAccessReview:
		return append(validateSpec(&r.Spec), emptyMeta(&r.ObjectMeta, false)...)
	case *authorizationv1.LocalSubjectAccessReview:
		errs := append(validateSpec(&r.Spec), emptyMeta(&r.ObjectMeta, true)...)
		if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
			errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), a.Namespace, "must match metadata.namespace"))
		}
		if a := r.Spec.NonResourceAttributes; a != nil {
			errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), a, "disallowed on this kind of request"))
		}
		return errs
	}
	return nil
}

func validateSpec(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateOne(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}

func validateOne(r *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) field.ErrorList {
	if (r == nil) == (path == nil) {
		return field.ErrorList{field.Invalid(field.NewPath("spec"), path,
			"exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	if r == nil {
		return nil
	}
	at := field.NewPath("spec.resourceAttributes")
	var errs field.ErrorList
	if f := r.FieldSelector; f != nil {
		at := at.Child("fieldSelector")
		errs = append(errs, validateSelector(at, f.RawSelector, len(f.Requirements))...)
		opts := metav1validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
		for i, requirement := range f.Requirements {
			errs = append(errs, metav1validation.ValidateFieldSelectorRequirement(requirement, opts, at.Child("requirements").Index(i))...)
		}
	}
	if l := r.LabelSelector; l != nil {
		at := at.Child("labelSelector")
		errs = append(errs, validateSelector(at, l.RawSelector, len(l.Requirements))...)
		opts := metav1validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
		for i, requirement := range l.Requirements {
			errs = append(errs, metav1validation.ValidateLabelSelectorRequirement(requirement, opts, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

func validateSelector(at *field.Path, raw string, requirements int) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(at.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(at.Child("requirements"), "when "+at.String()+" is specified, requirements or rawSelector is required")}
	}
	return nil
}

func emptyMeta(have *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	meta, told := *have, "must be empty"
	meta.ManagedFields = nil
	if namespaced {
		meta.Namespace, told = "", "must be empty except for namespace"
	}
	if equality.Semantic.DeepEqual(metav1.ObjectMeta{}, meta) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), have, told)}
}
