package definition

import (
	"fmt"
	"slices"

	"github.com/shoal-edge/shoal/api/expression"
	"github.com/shoal-edge/shoal/api/structural"
)

// Warnings tells the author of a new or changed (older is not nil) definition what it does not do.
func Warnings(newer, older *crd) []string {
	found := warnings(newer)
	if older == nil {
		return append(found, notDone(newer)...)
	}
	before := warnings(older)
	found = slices.DeleteFunc(found, func(w string) bool { return slices.Contains(before, w) })
	return append(found, notDone(newer)...)
}

func warnings(d *crd) []string {
	var found []string
	add := func(text string) {
		if !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	eachProps(d, func(s *props) {
		if !structural.KnownFormat(s.Type, s.Format) {
			add(fmt.Sprintf("unrecognized format %q", s.Format))
		}
		if s.XListType != nil && *s.XListType == "set" && s.Items != nil && s.Items.Schema != nil {
			if t := s.Items.Schema.Type; t == "object" || t == "array" {
				add(fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", t))
			}
		}
	})
	slices.Sort(found)
	return found
}

// notDone is what is said on every write of a definition that asks for what this server does not do.
func notDone(d *crd) []string {
	var found []string
	rules := 0
	eachProps(d, func(s *props) { rules += len(s.XValidations) })
	if rules > 0 && !expression.Evaluated {
		found = append(found, fmt.Sprintf("this server does not evaluate x-kubernetes-validations: "+
			"objects that break the CEL rules of this definition (%d) are accepted", rules))
	}
	return found
}

// eachProps calls f for every schema of a definition and all that is in it.
func eachProps(d *crd, f func(*props)) {
	if v := d.Spec.Validation; v != nil {
		walk(v.OpenAPIV3Schema, f)
	}
	for _, v := range d.Spec.Versions {
		if v.Schema != nil {
			walk(v.Schema.OpenAPIV3Schema, f)
		}
	}
}

func walk(s *props, f func(*props)) {
	if s == nil {
		return
	}
	f(s)
	for _, property := range s.Properties {
		walk(&property, f)
	}
	if s.Items != nil {
		walk(s.Items.Schema, f)
	}
	if s.AdditionalProperties != nil {
		walk(s.AdditionalProperties.Schema, f)
	}
	for _, some := range [][]props{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range some {
			walk(&some[i], f)
		}
	}
	walk(s.Not, f)
}
