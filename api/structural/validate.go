package structural

import (
	"encoding/json"
	"errors"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apimachinery/pkg/util/validation/field"
	openapierrors "k8s.io/kube-openapi/pkg/validation/errors"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
)

// Validate checks a whole new object, metadata included.
func (s *Schema) Validate(object map[string]any) field.ErrorList {
	errs := s.ValidateValue(nil, object)
	errs = append(errs, validateEmbedded(nil, object, s.tree)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.tree, object)...)
	return s.rules.check(object, nil, errs)
}

// ValidateUpdate checks a changed object. What was wrong before may stay as it was: a schema that became stricter does not
// forbid to change something else.
func (s *Schema) ValidateUpdate(newer, older map[string]any) field.ErrorList {
	r := &ratchet{pair: pair{newer, older, s.tree}, schema: s.check, formats: strfmt.Default}
	errs := fieldErrors(nil, r.Validate(newer))
	errs = append(errs, validateEmbedded(nil, newer, s.tree)...)
	return s.rules.check(newer, older, append(errs, s.validateLists(newer, older)...))
}

// ValidateStatus checks a changed status, and the lists of the object that it belongs to.
func (s *Schema) ValidateStatus(newer, older map[string]any) field.ErrorList {
	var errs field.ErrorList
	if status, found := newer["status"]; found {
		if check, ok := s.check.Properties["status"]; ok {
			root := pair{newer, older, s.tree}
			r := validate.ValueValidator(validate.NewSchemaValidator(&check, nil, "", strfmt.Default))
			if at := root.field("status"); at != nil {
				r = &ratchet{pair: *at, schema: &check, formats: strfmt.Default}
			}
			errs = fieldErrors(field.NewPath("status"), r.Validate(status))
		}
	}
	return s.rules.check(newer, older, append(errs, s.validateLists(newer, older)...))
}

// validateLists checks sets and maps for members that are there twice, unless there were some before.
func (s *Schema) validateLists(newer, older map[string]any) field.ErrorList {
	errs := listtype.ValidateListSetsAndMaps(nil, s.tree, newer)
	if len(errs) == 0 || len(listtype.ValidateListSetsAndMaps(nil, s.tree, older)) > 0 {
		return nil
	}
	return errs
}

// ValidateValue checks a value that is one of the schema's, by the schema alone.
func (s *Schema) ValidateValue(path *field.Path, value any) field.ErrorList {
	return fieldErrors(path, validate.NewSchemaValidator(s.check, nil, "", strfmt.Default).Validate(value))
}

// fieldErrors tells what the validator found as the API does.
func fieldErrors(path *field.Path, result *validate.Result) field.ErrorList {
	var errs field.ErrorList
	for _, err := range result.Errors {
		var found *openapierrors.Validation
		if !errors.As(err, &found) {
			errs = append(errs, field.Invalid(path, "", err.Error()))
			continue
		}
		at := path
		if name := strings.TrimPrefix(found.Name, "."); name != "" {
			at = path.Child(name)
		}
		errs = append(errs, fieldError(at, found))
	}
	return errs
}

func fieldError(at *field.Path, err *openapierrors.Validation) *field.Error {
	value := err.Value
	if value == nil {
		value = ""
	}
	switch err.Code() {
	case openapierrors.RequiredFailCode:
		return field.Required(at, "")
	case openapierrors.EnumFailCode:
		var allowed []string
		for _, v := range err.Values {
			text, ok := v.(string)
			if !ok {
				data, _ := json.Marshal(v) // it came out of JSON
				text = string(data)
			}
			allowed = append(allowed, text)
		}
		return field.NotSupported(at, err.Value, allowed)
	case openapierrors.TooLongFailCode:
		return field.TooLong(at, "", number(err.Valid))
	case openapierrors.MaxItemsFailCode, openapierrors.TooManyPropertiesCode:
		return field.TooMany(at, number(err.Value), number(err.Valid))
	case openapierrors.InvalidTypeCode:
		return field.TypeInvalid(at, value, err.Error())
	}
	return field.Invalid(at, value, err.Error())
}

// number is a count, or -1 for what is none.
func number(v any) int {
	if n, ok := v.(int64); ok {
		return int(n)
	}
	return -1
}
