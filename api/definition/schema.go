package definition

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/api/structural"
)

// allowedAtRoot are the fields of the schema's root with the status subresource on: the status is then validated alone, by the
// property of that name.
var allowedAtRoot = []string{
	"Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength", "MinLength",
	"Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties", "ExternalDocs", "Example",
	"XPreserveUnknownFields", "XValidations",
}

func validateSchema(v *apiextensions.CustomResourceValidation, status bool, path *field.Path) field.ErrorList {
	if v == nil || v.OpenAPIV3Schema == nil {
		return nil
	}
	root, at := v.OpenAPIV3Schema, path.Child("openAPIV3Schema")
	var errs, notStructural field.ErrorList
	if status {
		errs = append(errs, validateRoot(root, path)...)
	}
	if root.Nullable {
		errs = append(errs, field.Forbidden(path.Child("openAPIV3Schema.nullable"), "nullable cannot be true at the root"))
	}
	tree, err := schema.NewStructural(root)
	if err != nil {
		notStructural = field.ErrorList{field.Invalid(at, "", err.Error())}
	} else if wrong := schema.ValidateStructural(at, tree); len(wrong) > 0 {
		errs = append(errs, wrong...)
	} else {
		errs = append(errs, structural.ValidateDefaults(at, tree)...)
	}
	errs = append(errs, place{defaults: true, root: true}.validate(root, at)...)
	if len(errs) > 0 {
		return errs
	}
	if len(notStructural) > 0 {
		return notStructural // it mostly repeats the others
	}
	return structural.CheckRules(at, tree)
}

func validateRoot(root *props, path *field.Path) field.ErrorList {
	value := reflect.ValueOf(root).Elem()
	for i := range value.NumField() {
		name := value.Type().Field(i).Name
		switch {
		case value.Field(i).IsZero():
		case name == "Type" && root.Type != "object":
			return field.ErrorList{field.Invalid(path.Child("openAPIV3Schema.type"), root.Type,
				`only "object" is allowed as the type at the root of the schema if the status subresource is enabled`)}
		case !slices.Contains(allowedAtRoot, name):
			return field.ErrorList{field.Invalid(path.Child("openAPIV3Schema"), *root,
				fmt.Sprintf("only %v fields are allowed at the root of the schema if the status subresource is enabled", allowedAtRoot))}
		}
	}
	return nil
}

// place is where in a schema a part of it stands.
type place struct {
	root     bool
	meta     bool // inside of what describes a resource's metadata or type
	defaults bool // there may be some here
	why      string
}

func (p place) withoutDefaults(why string) place {
	p.defaults, p.why = false, why
	return p
}

var typesKnown = []string{"array", "boolean", "integer", "number", "object", "string"}

// validate checks a schema and all that is in it.
func (p place) validate(s *props, path *field.Path) field.ErrorList {
	if s == nil {
		return nil
	}
	errs := p.validateSupported(s, path)
	if s.UniqueItems {
		errs = append(errs, field.Forbidden(path.Child("uniqueItems"), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"))
	}
	inner := p
	inner.root = false
	if more := s.AdditionalProperties; more != nil {
		if len(s.Properties) != 0 && (!more.Allows || more.Schema != nil) {
			errs = append(errs, field.Forbidden(path.Child("additionalProperties"), "additionalProperties and properties are mutual exclusive"))
		}
		below := inner
		if p.meta {
			below = inner.withoutDefaults("inside additionalProperties applying to object metadata")
		}
		errs = append(errs, below.validate(more.Schema, path.Child("additionalProperties"))...)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property, below := s.Properties[name], inner
		if (p.root || s.XEmbeddedResource) && slices.Contains([]string{"metadata", "kind", "apiVersion"}, name) {
			below.meta = true
			if p.root {
				below = below.withoutDefaults("in top-level " + name)
			}
		}
		errs = append(errs, below.validate(&property, path.Child("properties").Key(name))...)
	}
	errs = append(errs, inner.validate(s.Not, path.Child("not"))...)
	for _, some := range []struct {
		name    string
		schemas []props
	}{{"allOf", s.AllOf}, {"oneOf", s.OneOf}, {"anyOf", s.AnyOf}} {
		for i := range some.schemas {
			errs = append(errs, inner.validate(&some.schemas[i], path.Child(some.name).Index(i))...)
		}
	}
	if s.Items != nil {
		errs = append(errs, inner.validate(s.Items.Schema, path.Child("items"))...)
	}
	errs = append(errs, validateExtensions(s, path)...)
	errs = append(errs, validateListType(s, path)...)
	return append(errs, validateRules(s, path.Child("x-kubernetes-validations"))...)
}

// validateSupported refuses what JSON Schema has and CustomResourceDefinitions do not.
func (p place) validateSupported(s *props, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	forbid := func(when bool, name, detail string) {
		if when {
			errs = append(errs, field.Forbidden(path.Child(name), detail))
		}
	}
	if s.Type != "" && !slices.Contains(typesKnown, s.Type) {
		errs = append(errs, field.NotSupported(path.Child("type"), s.Type, typesKnown))
	}
	forbid(s.Default != nil && !p.defaults, "default", strings.TrimSpace("must not be set "+p.why))
	forbid(s.ID != "", "id", "id is not supported")
	forbid(s.AdditionalItems != nil, "additionalItems", "additionalItems is not supported")
	forbid(len(s.PatternProperties) != 0, "patternProperties", "patternProperties is not supported")
	forbid(len(s.Definitions) != 0, "definitions", "definitions is not supported")
	forbid(s.Dependencies != nil, "dependencies", "dependencies is not supported")
	forbid(s.Ref != nil, "$ref", "$ref is not supported")
	forbid(s.Type == "null", "type", "type cannot be set to null, use nullable as an alternative")
	forbid(s.Items != nil && len(s.Items.JSONSchemas) != 0, "items", "items must be a schema object and not an array")
	forbid(p.meta && s.XEmbeddedResource, "x-kubernetes-embedded-resource", "must not be used inside of resource meta")
	return errs
}

// wantType tells that an extension needs a type.
func wantType(s *props, path *field.Path, want, detail string) field.ErrorList {
	switch s.Type {
	case want:
		return nil
	case "":
		return field.ErrorList{field.Required(path.Child("type"), detail)}
	}
	return field.ErrorList{field.Invalid(path.Child("type"), s.Type, detail)}
}

func validateExtensions(s *props, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if keep := s.XPreserveUnknownFields; keep != nil && !*keep {
		errs = append(errs, field.Invalid(path.Child("x-kubernetes-preserve-unknown-fields"), *keep, "must be true or undefined"))
	}
	if s.XMapType != nil {
		errs = append(errs, wantType(s, path, "object", "must be object if x-kubernetes-map-type is specified")...)
		if kinds := []string{"atomic", "granular"}; !slices.Contains(kinds, *s.XMapType) {
			errs = append(errs, field.NotSupported(path.Child("x-kubernetes-map-type"), *s.XMapType, kinds))
		}
	}
	if s.XListType != nil {
		errs = append(errs, wantType(s, path, "array", "must be array if x-kubernetes-list-type is specified")...)
		if kinds := []string{"atomic", "set", "map"}; !slices.Contains(kinds, *s.XListType) {
			errs = append(errs, field.NotSupported(path.Child("x-kubernetes-list-type"), *s.XListType, kinds))
		}
	}
	return errs
}

// validateListType checks that the members of a set or a map can be told apart.
func validateListType(s *props, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var members *props
	if s.Items != nil {
		members = s.Items.Schema
	}
	items, listType := path.Child("items"), ""
	if s.XListType != nil {
		listType = *s.XListType
	}
	if len(s.XListMapKeys) > 0 && listType != "map" {
		at, detail := path.Child("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty"
		if s.XListType == nil {
			errs = append(errs, field.Required(at, detail))
		} else {
			errs = append(errs, field.Invalid(at, listType, detail))
		}
	}
	if (listType == "set" || listType == "map") && members != nil && members.Nullable {
		errs = append(errs, field.Forbidden(items.Child("nullable"), "cannot be nullable when x-kubernetes-list-type is "+listType))
	}
	switch {
	case listType == "set" && members != nil && s.Type == "array":
		const detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
		if members.Type == "array" && members.XListType != nil && *members.XListType != "atomic" {
			errs = append(errs, field.Invalid(items.Child("x-kubernetes-list-type"), members.XListType, detail))
		}
		if members.Type == "object" && (members.XMapType == nil || *members.XMapType != "atomic") {
			errs = append(errs, field.Invalid(items.Child("x-kubernetes-map-type"), members.XListType, detail))
		}
	case listType == "map":
		errs = append(errs, validateMapList(s, members, path)...)
	}
	return errs
}

func validateMapList(s, members *props, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	items := path.Child("items")
	if len(s.XListMapKeys) == 0 {
		errs = append(errs, field.Required(path.Child("x-kubernetes-list-map-keys"), "must not be empty if x-kubernetes-list-type is map"))
	}
	switch {
	case s.Items == nil:
		return append(errs, field.Required(items, "must have a schema if x-kubernetes-list-type is map"))
	case members == nil:
		return append(errs, field.Invalid(items, s.Items, "must only have a single schema if x-kubernetes-list-type is map"))
	case members.Type != "object":
		return append(errs, field.Invalid(items.Child("type"), members.Type, "must be object if parent array's x-kubernetes-list-type is map"))
	}
	for i, key := range s.XListMapKeys {
		if slices.Contains(s.XListMapKeys[:i], key) {
			errs = append(errs, field.Invalid(path.Child("x-kubernetes-list-map-keys"), s.XListMapKeys, "must not contain duplicate entries"))
		}
		property, ok := members.Properties[key]
		if !ok {
			errs = append(errs, field.Invalid(path.Child("x-kubernetes-list-map-keys"), s.XListMapKeys, "entries must all be names of item properties"))
			continue
		}
		at := items.Child("properties").Key(key)
		if property.Type == "array" || property.Type == "object" {
			errs = append(errs, field.Invalid(at.Child("type"), members.Type, "must be a scalar type if parent array's x-kubernetes-list-type is map"))
		}
		if !slices.Contains(members.Required, key) && property.Default == nil {
			errs = append(errs, field.Required(at.Child("default"),
				"this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"))
		}
		if property.Nullable {
			errs = append(errs, field.Forbidden(at.Child("nullable"), "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"))
		}
	}
	return errs
}

// ruleReasons are why a value that breaks a rule may be said to be wrong.
var ruleReasons = []apiextensions.FieldValueErrorReason{
	apiextensions.FieldValueDuplicate, apiextensions.FieldValueForbidden, apiextensions.FieldValueInvalid, apiextensions.FieldValueRequired,
}

// validateRules checks the form of CEL rules. What they say is checked when all else is right.
func validateRules(s *props, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, rule := range s.XValidations {
		at := path.Index(i)
		text, message := strings.TrimSpace(rule.Rule), strings.TrimSpace(rule.Message)
		switch {
		case text == "":
			errs = append(errs, field.Required(at.Child("rule"), "rule is not specified"))
		case rule.Message != "" && message == "":
			errs = append(errs, field.Invalid(at.Child("message"), rule.Message, "must be non-empty if specified"))
		case strings.ContainsAny(message, "\n\r"):
			errs = append(errs, field.Invalid(at.Child("message"), rule.Message, "must not contain line breaks"))
		case strings.ContainsAny(text, "\n\r") && message == "":
			errs = append(errs, field.Required(at.Child("message"), "message must be specified if rule contains line breaks"))
		}
		if rule.MessageExpression != "" && strings.TrimSpace(rule.MessageExpression) == "" {
			errs = append(errs, field.Required(at.Child("messageExpression"), "messageExpression must be non-empty if specified"))
		}
		if rule.Reason != nil && !slices.Contains(ruleReasons, *rule.Reason) {
			errs = append(errs, field.NotSupported(at.Child("reason"), *rule.Reason, ruleReasons))
		}
		if rule.FieldPath != "" && strings.TrimSpace(rule.FieldPath) == "" {
			errs = append(errs, field.Invalid(at.Child("fieldPath"), rule.FieldPath, "must be non-empty if specified"))
		}
		if strings.ContainsAny(rule.FieldPath, "\n\r") {
			errs = append(errs, field.Invalid(at.Child("fieldPath"), rule.FieldPath, "must not contain line breaks"))
		}
	}
	return errs
}
