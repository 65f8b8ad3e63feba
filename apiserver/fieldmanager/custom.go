package fieldmanager

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/shoal-edge/shoal/api/custom"
)

// The named types that the schemas of defined kinds refer to.
const (
	typeMetadata = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	typeAnything = "__shoal_anything"
)

// anything is merged by what it looks like: maps by their keys, lists as a whole.
func anything() smd.TypeDef {
	untyped := smd.Scalar("untyped")
	return smd.TypeDef{Name: typeAnything, Atom: smd.Atom{
		Scalar: &untyped,
		List:   &smd.List{ElementType: named(typeAnything), ElementRelationship: smd.Atomic},
		Map:    &smd.Map{ElementType: named(typeAnything), ElementRelationship: smd.Separable},
	}}
}

// customSchema is where the types of defined kinds are looked up: the embedded ones, and anything.
var customSchema = sync.OnceValues(func() (*smd.Schema, error) {
	p, err := schemas()
	if err != nil {
		return nil, err
	}
	return &smd.Schema{Types: append(slices.Clone(p.Schema.Types), anything())}, nil
})

// customType is the type of a defined kind, by its structural schema.
func customType(v *custom.Version) (typed.ParseableType, error) {
	all, err := customSchema()
	if err != nil {
		return typed.ParseableType{}, err
	}
	root := *v.Structural()
	root.XEmbeddedResource = true // it has a type and metadata, too
	return typed.ParseableType{Schema: all, TypeRef: typeOfSchema(&root)}, nil
}

func named(name string) smd.TypeRef { return smd.TypeRef{NamedType: &name} }

func scalar(s smd.Scalar) smd.TypeRef { return smd.TypeRef{Inlined: smd.Atom{Scalar: &s}} }

// typeOfSchema says how a value is merged.
func typeOfSchema(s *schema.Structural) smd.TypeRef {
	if s == nil {
		return named(typeAnything)
	}
	switch s.Type {
	case "object":
		return smd.TypeRef{Inlined: smd.Atom{Map: mapOf(s)}}
	case "array":
		return smd.TypeRef{Inlined: smd.Atom{List: listOf(s)}}
	case "string":
		return scalar(smd.String)
	case "boolean":
		return scalar(smd.Boolean)
	case "integer", "number":
		return scalar(smd.Numeric)
	}
	if s.XIntOrString {
		return scalar("untyped")
	}
	return named(typeAnything)
}

func mapOf(s *schema.Structural) *smd.Map {
	m := &smd.Map{ElementRelationship: smd.Separable}
	if s.XMapType != nil && *s.XMapType == "atomic" {
		m.ElementRelationship = smd.Atomic
	}
	fields := map[string]smd.StructField{}
	for name, property := range s.Properties {
		field := smd.StructField{Name: name, Type: typeOfSchema(&property)}
		switch property.Default.Object.(type) {
		case string, bool, int64, float64:
			field.Default = property.Default.Object // a list's key may be left out
		}
		fields[name] = field
	}
	if s.XEmbeddedResource {
		fields["apiVersion"] = smd.StructField{Name: "apiVersion", Type: scalar(smd.String)}
		fields["kind"] = smd.StructField{Name: "kind", Type: scalar(smd.String)}
		fields["metadata"] = smd.StructField{Name: "metadata", Type: named(typeMetadata)}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		m.Fields = append(m.Fields, fields[name])
	}
	switch {
	case s.AdditionalProperties != nil:
		m.ElementType = typeOfSchema(s.AdditionalProperties.Structural)
	case s.XPreserveUnknownFields:
		m.ElementType = named(typeAnything)
	}
	return m
}

func listOf(s *schema.Structural) *smd.List {
	l := &smd.List{ElementType: typeOfSchema(s.Items), ElementRelationship: smd.Atomic}
	if s.XListType == nil {
		return l
	}
	switch *s.XListType {
	case "set":
		l.ElementRelationship = smd.Associative
	case "map":
		l.ElementRelationship, l.Keys = smd.Associative, s.XListMapKeys
	}
	return l
}
