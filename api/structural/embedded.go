package structural

import (
	"encoding/json"
	"errors"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// eachEmbedded calls visit for every object inside value that its schema says is a whole resource, until one fails.
func eachEmbedded(path *field.Path, value any, s *schema.Structural, visit func(*field.Path, map[string]any) *field.Error) *field.Error {
	if s == nil {
		return nil
	}
	switch value := value.(type) {
	case map[string]any:
		if s.XEmbeddedResource {
			if err := visit(path, value); err != nil {
				return err
			}
		}
		for name, inner := range value {
			at := path.Child(name)
			if _, declared := s.Properties[name]; !declared {
				at = path.Key(name)
			}
			if err := eachEmbedded(at, inner, child(s, name), visit); err != nil {
				return err
			}
		}
	case []any:
		for i, inner := range value {
			if err := eachEmbedded(path.Index(i), inner, s.Items, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// coerce cuts the metadata of embedded resources to the fields that metadata has, and returns the paths of the others.
func coerce(value any, s *schema.Structural) (unknown []string, err *field.Error) {
	err = eachEmbedded(nil, value, s, func(path *field.Path, resource map[string]any) *field.Error {
		for _, name := range []string{"apiVersion", "kind"} {
			if text, found := resource[name]; found {
				if _, ok := text.(string); !ok {
					return field.Invalid(path.Child(name), text, "must be a string")
				}
			}
		}
		given, found := resource["metadata"]
		if !found {
			return nil
		}
		at := path.Child("metadata")
		meta, strict, err := DecodeMetadata(given)
		if err != nil {
			return field.Invalid(at, given, err.Error())
		}
		for _, name := range strict {
			unknown = append(unknown, at.String()+"."+name)
		}
		clean, err := EncodeMetadata(meta)
		if err != nil {
			return field.Invalid(at, given, err.Error())
		}
		resource["metadata"] = clean
		return nil
	})
	return unknown, err
}

// DecodeMetadata reads metadata and returns the paths of the fields that metadata does not have.
func DecodeMetadata(given any) (meta *metav1.ObjectMeta, unknown []string, err error) {
	data, err := json.Marshal(given)
	if err != nil {
		return nil, nil, err
	}
	meta = &metav1.ObjectMeta{}
	strict, err := kjson.UnmarshalStrict(data, meta)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range strict {
		if at := kjson.FieldError(nil); errors.As(err, &at) {
			unknown = append(unknown, at.FieldPath())
		}
	}
	return meta, unknown, nil
}

// EncodeMetadata is metadata as a JSON value.
func EncodeMetadata(meta *metav1.ObjectMeta) (map[string]any, error) {
	value, err := runtime.DefaultUnstructuredConverter.ToUnstructured(meta)
	if err != nil {
		return nil, err
	}
	if meta.CreationTimestamp.IsZero() {
		delete(value, "creationTimestamp")
	}
	return value, nil
}

// validateEmbedded checks the type and the metadata of embedded resources.
func validateEmbedded(path *field.Path, value any, s *schema.Structural) field.ErrorList {
	var errs field.ErrorList
	_ = eachEmbedded(path, value, s, func(path *field.Path, resource map[string]any) *field.Error { // it never fails
		errs = append(errs, validateResource(path, resource)...)
		return nil
	})
	return errs
}

func validateResource(path *field.Path, resource map[string]any) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, validateText(path.Child("apiVersion"), resource, "apiVersion", func(at *field.Path, version string) *field.Error {
		if _, err := runtimeschema.ParseGroupVersion(version); err != nil {
			return field.Invalid(at, version, err.Error())
		}
		return nil
	})...)
	errs = append(errs, validateText(path.Child("kind"), resource, "kind", func(at *field.Path, kind string) *field.Error {
		if wrong := validation.IsDNS1035Label(strings.ToLower(kind)); len(wrong) > 0 {
			return field.Invalid(at, kind, "may have mixed case, but should otherwise match: "+strings.Join(wrong, ","))
		}
		return nil
	})...)
	given, found := resource["metadata"]
	if !found {
		return errs
	}
	meta, _, err := DecodeMetadata(given)
	if err != nil {
		return append(errs, field.Invalid(path.Child("metadata"), given, err.Error()))
	}
	if meta.Name == "" {
		meta.Name = "unnamed" // an embedded resource needs no name
	}
	return append(errs, apivalidation.ValidateObjectMeta(meta, meta.Namespace != "", pathSegment, path.Child("metadata"))...)
}

func validateText(at *field.Path, resource map[string]any, name string, check func(*field.Path, string) *field.Error) field.ErrorList {
	value, found := resource[name]
	text, isText := value.(string)
	var err *field.Error
	switch {
	case !found:
		err = field.Required(at, "")
	case !isText:
		err = field.Invalid(at, value, "must be a string")
	case text == "":
		err = field.Invalid(at, text, "must not be empty")
	default:
		err = check(at, text)
	}
	if err == nil {
		return nil
	}
	return field.ErrorList{err}
}

func pathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}
