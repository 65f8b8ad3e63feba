// Package definition owns what a CustomResourceDefinition has to be like: its validation, in upstream's words, and what its
// author should be warned of. Upstream's own package for it cannot be used, as it brings the whole of CEL and half of client-go along.
//
// Rules in CEL (x-kubernetes-validations) are evaluated by a server that was built with the tag cel. In any other one they are accepted and
// kept; Warnings says so.
package definition

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The short names of a long-winded package.
type (
	crd     = apiextensions.CustomResourceDefinition
	crdSpec = apiextensions.CustomResourceDefinitionSpec
	version = apiextensions.CustomResourceDefinitionVersion
	props   = apiextensions.JSONSchemaProps
)

// Validate checks a new definition.
func Validate(newer *crd) field.ErrorList {
	name := func(name string, prefix bool) []string {
		wrong := validation.NameIsDNSSubdomain(name, prefix)
		if name != newer.Spec.Names.Plural+"."+newer.Spec.Group {
			wrong = append(wrong, `must be spec.names.plural+"."+spec.group`)
		}
		return wrong
	}
	errs := validation.ValidateObjectMeta(&newer.ObjectMeta, false, name, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&newer.Spec, field.NewPath("spec"))...)
	errs = append(errs, validateStatus(newer)...)
	errs = append(errs, validateApproval(newer, nil)...)
	if p := newer.Spec.PreserveUnknownFields; p != nil && *p {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), p,
			"cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"))
	}
	return errs
}

// ValidateUpdate checks a changed definition.
func ValidateUpdate(newer, older *crd) field.ErrorList {
	path := field.NewPath("spec")
	errs := validation.ValidateObjectMetaUpdate(&newer.ObjectMeta, &older.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&newer.Spec, path)...)
	if apiextensions.IsCRDConditionTrue(older, apiextensions.Established) {
		errs = append(errs, validation.ValidateImmutableField(newer.Spec.Scope, older.Spec.Scope, path.Child("scope"))...)
		errs = append(errs, validation.ValidateImmutableField(newer.Spec.Names.Kind, older.Spec.Names.Kind, path.Child("names", "kind"))...)
	}
	errs = append(errs, validation.ValidateImmutableField(newer.Spec.Group, older.Spec.Group, path.Child("group"))...)
	errs = append(errs, validation.ValidateImmutableField(newer.Spec.Names.Plural, older.Spec.Names.Plural, path.Child("names", "plural"))...)
	errs = append(errs, validateStatus(newer)...)
	return append(errs, validateApproval(newer, older)...)
}

// ValidateStatus checks a changed status.
func ValidateStatus(newer, older *crd) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&newer.ObjectMeta, &older.ObjectMeta, field.NewPath("metadata"))
	return append(errs, validateNames(&newer.Status.AcceptedNames, field.NewPath("status", "acceptedNames"))...)
}

func validateStatus(d *crd) field.ErrorList {
	path := field.NewPath("status")
	errs := validateNames(&d.Status.AcceptedNames, path.Child("acceptedNames"))
	stored, at := d.Status.StoredVersions, path.Child("storedVersions")
	if len(stored) == 0 {
		return append(errs, field.Invalid(at, stored, "must have at least one stored version"))
	}
	for _, v := range d.Spec.Versions {
		if v.Storage && !slices.Contains(stored, v.Name) {
			errs = append(errs, field.Invalid(at, stored, "must have the storage version "+v.Name))
		}
	}
	for i, name := range stored {
		if !slices.ContainsFunc(d.Spec.Versions, func(v version) bool { return v.Name == name }) {
			errs = append(errs, field.Invalid(at.Index(i), name, fmt.Sprintf("missing from spec.versions; %[1]s was previously a storage "+
				"version, and must remain in spec.versions until a storage migration ensures no data remains persisted in %[1]s and "+
				"removes %[1]s from status.storedVersions", name)))
		}
	}
	return errs
}

// validateApproval wants the groups of the Kubernetes community to say who approved a kind.
func validateApproval(newer, older *crd) field.ErrorList {
	if !apihelpers.IsProtectedCommunityGroup(newer.Spec.Group) {
		return nil
	}
	state, reason := apihelpers.GetAPIApprovalState(newer.Annotations)
	if older != nil {
		if before, _ := apihelpers.GetAPIApprovalState(older.Annotations); before == state {
			return nil
		}
	}
	at := field.NewPath("metadata", "annotations").Key(apiextensionsv1.KubeAPIApprovedAnnotation)
	switch state {
	case apihelpers.APIApproved, apihelpers.APIApprovalBypassed:
		return nil
	case apihelpers.APIApprovalMissing:
		return field.ErrorList{field.Required(at, reason)}
	}
	return field.ErrorList{field.Invalid(at, newer.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation], reason)}
}

func validateNames(names *apiextensions.CustomResourceDefinitionNames, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	label := func(at *field.Path, given, tested, hint string) {
		if wrong := utilvalidation.IsDNS1035Label(tested); given != "" && len(wrong) > 0 {
			errs = append(errs, field.Invalid(at, given, hint+strings.Join(wrong, ",")))
		}
	}
	const mixed = "may have mixed case, but should otherwise match: "
	label(path.Child("plural"), names.Plural, names.Plural, "")
	label(path.Child("singular"), names.Singular, names.Singular, "")
	label(path.Child("kind"), names.Kind, strings.ToLower(names.Kind), mixed)
	label(path.Child("listKind"), names.ListKind, strings.ToLower(names.ListKind), mixed)
	each := func(at *field.Path, values []string) {
		for i, value := range values {
			if wrong := utilvalidation.IsDNS1035Label(value); len(wrong) > 0 {
				errs = append(errs, field.Invalid(at.Index(i), value, strings.Join(wrong, ",")))
			}
		}
	}
	each(path.Child("shortNames"), names.ShortNames)
	if names.Kind != "" && names.Kind == names.ListKind {
		errs = append(errs, field.Invalid(path.Child("listKind"), names.ListKind, "kind and listKind may not be the same"))
	}
	each(path.Child("categories"), names.Categories)
	return errs
}
