package definition

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxSelectableFields   = 8
	maxDeprecationWarning = 256
)

// validateSpec checks a spec in its internal form, in which what all versions have alike stands at the top: that is why errors
// speak of spec.validation.
func validateSpec(spec *crdSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch wrong := utilvalidation.IsDNS1123Subdomain(spec.Group); {
	case spec.Group == "":
		errs = append(errs, field.Required(path.Child("group"), ""))
	case len(wrong) > 0:
		errs = append(errs, field.Invalid(path.Child("group"), spec.Group, strings.Join(wrong, ",")))
	case !strings.Contains(spec.Group, "."):
		errs = append(errs, field.Invalid(path.Child("group"), spec.Group, "should be a domain with at least one dot"))
	}
	errs = append(errs, oneOf(path.Child("scope"), string(spec.Scope), string(apiextensions.ClusterScoped), string(apiextensions.NamespaceScoped))...)
	errs = append(errs, validateVersions(spec, path)...)
	for _, name := range []struct{ field, value string }{
		{"plural", spec.Names.Plural},
		{"singular", spec.Names.Singular},
		{"kind", spec.Names.Kind},
		{"listKind", spec.Names.ListKind},
	} {
		if name.value == "" {
			errs = append(errs, field.Required(path.Child("names", name.field), ""))
		}
	}
	errs = append(errs, validateNames(&spec.Names, path.Child("names"))...)
	status := hasStatus(spec.Subresources) || slices.ContainsFunc(spec.Versions, func(v version) bool { return hasStatus(v.Subresources) })
	errs = append(errs, validateSchema(spec.Validation, status, path.Child("validation"))...)
	errs = append(errs, validateSubresources(spec.Subresources, path.Child("subresources"))...)
	errs = append(errs, validateColumns(spec.AdditionalPrinterColumns, path)...)
	errs = append(errs, validateSelectable(spec.SelectableFields, spec.Validation, path, "may only be set when validations.schema is included")...)
	return append(errs, validateConversion(spec.Conversion, path.Child("conversion"))...)
}

func oneOf(path *field.Path, value string, accepted ...string) field.ErrorList {
	switch {
	case value == "":
		return field.ErrorList{field.Required(path, "")}
	case !slices.Contains(accepted, value):
		return field.ErrorList{field.NotSupported(path, value, accepted)}
	}
	return nil
}

func validateVersions(spec *crdSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("versions")
	stored, names, unique := 0, map[string]bool{}, true
	for i, v := range spec.Versions {
		if v.Storage {
			stored++
		}
		unique = unique && !names[v.Name]
		names[v.Name] = true
		if (spec.Validation == nil || spec.Validation.OpenAPIV3Schema == nil) && (v.Schema == nil || v.Schema.OpenAPIV3Schema == nil) {
			errs = append(errs, field.Required(at.Index(i).Child("schema", "openAPIV3Schema"), ""))
		}
		if wrong := utilvalidation.IsDNS1035Label(v.Name); len(wrong) > 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("name"), v.Name, strings.Join(wrong, ",")))
		}
		errs = append(errs, validateVersion(&v, hasStatus(v.Subresources) || hasStatus(spec.Subresources), at.Index(i))...)
	}
	if len(spec.Versions) > 0 && spec.Versions[0].Name != "" { // the first one is what a definition with one version called it
		if wrong := utilvalidation.IsDNS1035Label(spec.Versions[0].Name); len(wrong) > 0 {
			errs = append(errs, field.Invalid(path.Child("version"), spec.Versions[0].Name, strings.Join(wrong, ",")))
		}
	}
	if !unique {
		errs = append(errs, field.Invalid(at, spec.Versions, "must contain unique version names"))
	}
	if stored != 1 {
		errs = append(errs, field.Invalid(at, spec.Versions, "must have exactly one version marked as storage version"))
	}
	return errs
}

func validateVersion(v *version, status bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, wrong := range validateDeprecation(v) {
		errs = append(errs, field.Invalid(path.Child("deprecationWarning"), v.DeprecationWarning, wrong))
	}
	errs = append(errs, validateSchema(v.Schema, status, path.Child("schema"))...)
	errs = append(errs, validateSubresources(v.Subresources, path.Child("subresources"))...)
	errs = append(errs, validateColumns(v.AdditionalPrinterColumns, path)...)
	return append(errs, validateSelectable(v.SelectableFields, v.Schema, path,
		"may only be set when `version.schema.openAPIV3Schema` is not included")...)
}

func validateDeprecation(v *version) []string {
	if v.DeprecationWarning == nil {
		return nil
	}
	if !v.Deprecated {
		return []string{"can only be set for deprecated versions"}
	}
	text := *v.DeprecationWarning
	var wrong []string
	if len(text) > maxDeprecationWarning {
		wrong = append(wrong, fmt.Sprintf("must be <= %d characters long", maxDeprecationWarning))
	}
	if text == "" {
		wrong = append(wrong, "must not be an empty string")
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		wrong = append(wrong, fmt.Sprintf("must only contain printable UTF-8 characters; non-printable character found at index %d", i))
	}
	if !utf8.ValidString(text) {
		wrong = append(wrong, "must only contain printable UTF-8 characters")
	}
	return wrong
}

func hasStatus(s *apiextensions.CustomResourceSubresources) bool { return s != nil && s.Status != nil }

func validateSubresources(s *apiextensions.CustomResourceSubresources, path *field.Path) field.ErrorList {
	if s == nil || s.Scale == nil {
		return nil
	}
	var errs field.ErrorList
	under := func(name, value, where string, roots ...string) {
		at := path.Child("scale." + name)
		switch wrong := simplePath(at, value); {
		case len(wrong) > 0:
			errs = append(errs, wrong...)
		case !slices.ContainsFunc(roots, func(root string) bool { return strings.HasPrefix(value, root) }):
			errs = append(errs, field.Invalid(at, value, "should be a json path under "+where))
		}
	}
	required := func(name, value, root string) {
		if value == "" {
			errs = append(errs, field.Required(path.Child("scale."+name), ""))
			return
		}
		under(name, value, strings.TrimSuffix(root, "."), root)
	}
	required("specReplicasPath", s.Scale.SpecReplicasPath, ".spec.")
	required("statusReplicasPath", s.Scale.StatusReplicasPath, ".status.")
	if p := s.Scale.LabelSelectorPath; p != nil && *p != "" {
		under("labelSelectorPath", *p, "either .spec or .status", ".spec.", ".status.")
	}
	return errs
}

func simplePath(at *field.Path, path string) field.ErrorList {
	switch {
	case path == "":
		return field.ErrorList{field.Invalid(at, path, "must not be empty")}
	case path[0] != '.':
		return field.ErrorList{field.Invalid(at, path, "must be a simple json path starting with .")}
	}
	return nil
}

// What a printer column may be of, sorted as the messages list it.
var (
	columnTypes   = []string{"boolean", "date", "integer", "number", "string"}
	columnFormats = []string{"byte", "date", "date-time", "double", "float", "int32", "int64", "password"}
)

func validateColumns(columns []apiextensions.CustomResourceColumnDefinition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	types, formats := "must be one of "+strings.Join(columnTypes, ","), "must be one of "+strings.Join(columnFormats, ",")
	for i, c := range columns {
		at := path.Child("additionalPrinterColumns").Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		switch {
		case c.Type == "":
			errs = append(errs, field.Required(at.Child("type"), types))
		case !slices.Contains(columnTypes, c.Type):
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, types))
		}
		if c.Format != "" && !slices.Contains(columnFormats, c.Format) {
			errs = append(errs, field.Invalid(at.Child("format"), c.Format, formats))
		}
		if c.JSONPath == "" {
			errs = append(errs, field.Required(at.Child("JSONPath"), ""))
		} else {
			errs = append(errs, simplePath(at.Child("JSONPath"), c.JSONPath)...)
		}
	}
	return errs
}

func validateSelectable(selectable []apiextensions.SelectableField, v *apiextensions.CustomResourceValidation, path *field.Path, missing string) field.ErrorList {
	if len(selectable) == 0 {
		return nil
	}
	at := path.Child("selectableFields")
	if v == nil || v.OpenAPIV3Schema == nil {
		return field.ErrorList{field.Invalid(at, "", missing)}
	}
	root, err := schema.NewStructural(v.OpenAPIV3Schema)
	if err != nil {
		return field.ErrorList{field.Invalid(path.Child("schema.openAPIV3Schema"), "", err.Error())}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, f := range selectable {
		at := at.Index(i).Child("jsonPath")
		if f.JSONPath == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		names := strings.Split(strings.TrimPrefix(f.JSONPath, "."), ".")
		found, err := descend(root, names)
		switch {
		case err == nil && names[0] == "metadata":
			errs = append(errs, field.Invalid(at, f.JSONPath, "must not point to fields in metadata"))
		case err != nil || f.JSONPath[0] != '.':
			errs = append(errs, field.Invalid(at, f.JSONPath, fmt.Sprintf("is an invalid path: %v", err)))
			continue
		case !slices.Contains([]string{"string", "boolean", "integer"}, found.Type):
			errs = append(errs, field.Invalid(at, f.JSONPath, "must point to a field of type string, boolean or integer. "+
				"Enum string fields and strings with formats are allowed."))
		}
		if seen[f.JSONPath] {
			errs = append(errs, field.Duplicate(at, f.JSONPath))
		}
		seen[f.JSONPath] = true
	}
	if len(seen) > maxSelectableFields {
		errs = append(errs, field.TooMany(at, len(seen), maxSelectableFields))
	}
	return errs
}

// descend follows the names of fields through a schema.
func descend(s *schema.Structural, names []string) (*schema.Structural, error) {
	for _, name := range names {
		next, ok := s.Properties[name]
		if !ok {
			return nil, fmt.Errorf("does not refer to a valid field")
		}
		s = &next
	}
	return s, nil
}

// validateConversion checks how versions become each other. A webhook is accepted, but never called: only the storage version is
// served then.
func validateConversion(c *apiextensions.CustomResourceConversion, path *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	errs := oneOf(path.Child("strategy"), string(c.Strategy), string(apiextensions.NoneConverter), string(apiextensions.WebhookConverter))
	at, hook, reviews := path.Child("webhookClientConfig"), c.WebhookClientConfig, c.ConversionReviewVersions
	if c.Strategy == apiextensions.WebhookConverter {
		switch {
		case hook == nil:
			errs = append(errs, field.Required(at, "required when strategy is set to Webhook"))
		case (hook.URL == nil) == (hook.Service == nil):
			errs = append(errs, field.Required(at, "exactly one of url or service is required"))
		}
		switch at := path.Child("conversionReviewVersions"); {
		case len(reviews) == 0:
			errs = append(errs, field.Required(at, ""))
		case !slices.Contains(reviews, "v1") && !slices.Contains(reviews, "v1beta1"):
			errs = append(errs, field.Invalid(at, reviews, "must include at least one of v1, v1beta1"))
		}
		return errs
	}
	const detail = "should not be set when strategy is not set to Webhook"
	if hook != nil {
		errs = append(errs, field.Forbidden(at, detail))
	}
	if len(reviews) > 0 {
		errs = append(errs, field.Forbidden(path.Child("conversionReviewVersions"), detail))
	}
	return errs
}
