package structural

import (
	"reflect"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
)

// pair is a value, what it was before, and its schema.
type pair struct {
	newer, older any
	schema       *schema.Structural
}

// field is the pair of a field, or nil if it has no counterpart.
func (p pair) field(name string) *pair {
	newer, isMap := p.newer.(map[string]any)
	older, wasMap := p.older.(map[string]any)
	if !isMap || !wasMap || p.schema == nil || p.schema.XMapType != nil && *p.schema.XMapType == "atomic" {
		return nil
	}
	before, found := older[name]
	inner := child(p.schema, name)
	if !found || inner == nil {
		return nil
	}
	return &pair{newer[name], before, inner}
}

// index is the pair of a member of a list, which has a counterpart only where its keys say which one that is.
func (p pair) index(i int) *pair {
	newer, isList := p.newer.([]any)
	older, wasList := p.older.([]any)
	if !isList || !wasList || i >= len(newer) || p.schema == nil || p.schema.XListType == nil || *p.schema.XListType != "map" {
		return nil
	}
	member, _ := newer[i].(map[string]any)
	at := slices.IndexFunc(older, func(o any) bool {
		before, ok := o.(map[string]any)
		return ok && member != nil && !slices.ContainsFunc(p.schema.XListMapKeys, func(key string) bool {
			return !reflect.DeepEqual(before[key], member[key])
		})
	})
	if at < 0 {
		return nil
	}
	return &pair{newer[i], older[at], p.schema.Items}
}

// ratchet validates a value and forgives what is wrong in it where it has not changed. The library's validator calls it for
// every field and member.
type ratchet struct {
	pair
	schema  *spec.Schema
	root    any
	path    string
	formats strfmt.Registry
	options []validate.Option
}

// Validate implements validate.ValueValidator.
func (r *ratchet) Validate(value any) *validate.Result {
	options := append([]validate.Option{func(o *validate.SchemaValidatorOptions) {
		o.NewValidatorForField, o.NewValidatorForIndex = r.forField, r.forIndex
	}}, r.options...)
	result := validate.NewSchemaValidator(r.schema, r.root, r.path, r.formats, options...).Validate(value)
	if !result.IsValid() && reflect.DeepEqual(r.newer, r.older) {
		forgiven := &validate.Result{}
		forgiven.MergeAsWarnings(result)
		return forgiven
	}
	return result
}

func (r *ratchet) forField(name string, s *spec.Schema, root any, path string, formats strfmt.Registry, options ...validate.Option) validate.ValueValidator {
	if r.path == "" && (name == "kind" || name == "apiVersion") {
		return validate.NewSchemaValidator(s, root, path, formats, options...)
	}
	return nextValidator(r.field(name), s, root, path, formats, options)
}

func (r *ratchet) forIndex(i int, s *spec.Schema, root any, path string, formats strfmt.Registry, options ...validate.Option) validate.ValueValidator {
	return nextValidator(r.index(i), s, root, path, formats, options)
}

func nextValidator(p *pair, s *spec.Schema, root any, path string, formats strfmt.Registry, options []validate.Option) validate.ValueValidator {
	if p == nil {
		return validate.NewSchemaValidator(s, root, path, formats, options...)
	}
	return &ratchet{pair: *p, schema: s, root: root, path: path, formats: formats, options: options}
}

// SetPath implements validate.ValueValidator; the path is known from the start.
func (r *ratchet) SetPath(string) {}

// Applies implements validate.ValueValidator.
func (r *ratchet) Applies(any, reflect.Kind) bool { return true }
