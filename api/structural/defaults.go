package structural

import (
	"maps"
	"reflect"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// fillIn puts in the defaults of what is absent, or null where null may not be. Defaults have defaults inside, too.
func fillIn(value any, s *schema.Structural) {
	if s == nil {
		return
	}
	switch value := value.(type) {
	case map[string]any:
		for name, property := range s.Properties {
			present, found := value[name]
			if property.Default.Object != nil && (!found || present == nil && !property.Nullable) {
				value[name] = runtime.DeepCopyJSONValue(property.Default.Object)
			}
		}
		for name, present := range value {
			child := child(s, name)
			if present == nil && child != nil && !child.Nullable && child.Default.Object != nil {
				value[name] = runtime.DeepCopyJSONValue(child.Default.Object)
			}
			fillIn(value[name], child)
		}
	case []any:
		for i, present := range value {
			if present == nil && s.Items != nil && !s.Items.Nullable {
				value[i] = runtime.DeepCopyJSONValue(s.Items.Default.Object)
			}
			fillIn(value[i], s.Items)
		}
	}
}

// dropNulls removes the nulls of fields that may be none and have no default.
func dropNulls(value any, s *schema.Structural) {
	switch value := value.(type) {
	case map[string]any:
		for name, present := range value {
			child := child(s, name)
			if present == nil && child != nil && !child.Nullable && child.Default.Object == nil {
				delete(value, name)
				continue
			}
			dropNulls(present, child)
		}
	case []any:
		var items *schema.Structural
		if s != nil {
			items = s.Items
		}
		for _, present := range value {
			dropNulls(present, items)
		}
	}
}

// child is the schema of a field; nil when it says nothing of it.
func child(s *schema.Structural, name string) *schema.Structural {
	if s == nil {
		return nil
	}
	if property, ok := s.Properties[name]; ok {
		return &property
	}
	if s.AdditionalProperties != nil {
		return s.AdditionalProperties.Structural
	}
	return nil
}

// pruneDefaults drops unknown fields from the defaults themselves, which are otherwise put in after the pruning.
func pruneDefaults(s *schema.Structural) {
	visitor := schema.Visitor{Structural: func(s *schema.Structural) bool {
		if s.Default.Object == nil {
			return false
		}
		s.Default.Object = runtime.DeepCopyJSONValue(s.Default.Object)
		pruning.Prune(s.Default.Object, s, s.XEmbeddedResource)
		return true
	}}
	visitor.Visit(s)
}

// ValidateDefaults checks that the defaults of a schema are values that it allows, without fields that would be dropped.
func ValidateDefaults(path *field.Path, s *schema.Structural) field.ErrorList {
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	if value := s.Default.Object; value != nil {
		errs = validateDefault(path.Child("default"), value, s)
	}
	// There are none inside additionalProperties: the definition's validation forbids them.
	errs = append(errs, ValidateDefaults(path.Child("items"), s.Items)...)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		errs = append(errs, ValidateDefaults(path.Child("properties").Key(name), &property)...)
	}
	return errs
}

func validateDefault(path *field.Path, value any, s *schema.Structural) field.ErrorList {
	var errs field.ErrorList
	pruned := runtime.DeepCopyJSONValue(value)
	pruning.Prune(pruned, s, s.XEmbeddedResource)
	if !reflect.DeepEqual(pruned, value) {
		errs = append(errs, field.Invalid(path, value, "must not have unknown fields"))
	}
	if _, err := coerce(pruned, s); err != nil {
		return append(errs, err)
	}
	if wrong := validateEmbedded(path, pruned, s); len(wrong) > 0 {
		return append(errs, wrong...)
	}
	return append(errs, (&Schema{tree: s, check: checked(s)}).ValidateValue(path, value)...)
}
