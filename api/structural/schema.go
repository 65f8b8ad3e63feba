// Package structural owns what a CustomResourceDefinition's schema does to a value: dropping what it does not know, filling in
// its defaults, and telling what is wrong. The schema itself and the pruning are upstream's own packages; what upstream ties to
// its API server, defaulting and validation, is here.
//
// Values are JSON as encoding/json has it, with int64 for whole numbers.
package structural

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Schema is a structural schema, ready for use. It is immutable and safe for concurrent use. The zero value knows no field, but
// those of every object.
type Schema struct {
	tree  *schema.Structural
	check *spec.Schema
	rules rules
}

// New prepares a schema. It fails for one that is not structural.
func New(props *apiextensions.JSONSchemaProps) (*Schema, error) {
	tree, err := schema.NewStructural(props)
	if err != nil {
		return nil, fmt.Errorf("structural: %w", err)
	}
	dropTexts(tree)
	pruneDefaults(tree)
	return &Schema{tree: tree, check: checked(tree), rules: newRules(tree)}, nil
}

// Structural is the schema as upstream has it. Nobody may change it.
func (s *Schema) Structural() *schema.Structural { return s.tree }

// Normalize gives an object, without its own metadata, the form in which it is stored: nulls that may not be are dropped,
// defaults filled in, embedded metadata cut to what it can hold, and unknown fields dropped. It returns the paths of those.
func (s *Schema) Normalize(object map[string]any) (unknown []string, err *field.Error) {
	dropNulls(object, s.tree)
	fillIn(object, s.tree)
	unknown, err = coerce(object, s.tree)
	if err != nil {
		return nil, err
	}
	dropped := pruning.PruneWithOptions(object, s.tree, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	unknown = append(unknown, dropped...)
	slices.Sort(unknown)
	return unknown, nil
}

// dropTexts forgets what is for people: it is most of what there is.
func dropTexts(tree *schema.Structural) {
	visitor := schema.Visitor{Structural: func(s *schema.Structural) bool {
		s.Description, s.Title, s.ExternalDocs, s.Example = "", "", nil, schema.JSON{}
		return true
	}}
	visitor.Visit(tree)
}

// checked is the schema as the validator wants it: formats that nobody can check say nothing, and what may be an integer or a
// string says so by its type.
func checked(tree *schema.Structural) *spec.Schema {
	out := tree.ToKubeOpenAPI()
	eachSchema(out, func(s *spec.Schema) {
		if !KnownFormat(strings.Join(s.Type, ","), s.Format) {
			s.Format = ""
		}
		if both, _ := s.Extensions.GetBool("x-kubernetes-int-or-string"); both {
			s.Type = spec.StringOrArray{"integer", "string"}
		}
	})
	return out
}

// eachSchema calls f for a schema and all that is in it.
func eachSchema(s *spec.Schema, f func(*spec.Schema)) {
	if s == nil {
		return
	}
	for name, property := range s.Properties {
		eachSchema(&property, f)
		s.Properties[name] = property
	}
	if s.Items != nil {
		eachSchema(s.Items.Schema, f)
	}
	if s.AdditionalProperties != nil {
		eachSchema(s.AdditionalProperties.Schema, f)
	}
	for _, some := range [][]spec.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range some {
			eachSchema(&some[i], f)
		}
	}
	eachSchema(s.Not, f)
	f(s)
}

// KnownFormat reports whether values of a type are checked against a format. Others are let pass.
func KnownFormat(valueType, format string) bool {
	if format == "" {
		return true
	}
	switch valueType {
	case "", "string":
		return slices.Contains(stringFormats, strings.ReplaceAll(format, "-", ""))
	case "integer":
		return format == "int32" || format == "int64"
	case "number":
		return format == "float" || format == "double"
	}
	return false
}

// stringFormats are those that the API documents for CustomResourceDefinitions, without their dashes.
var stringFormats = []string{
	"bsonobjectid", "uri", "email", "hostname", "ipv4", "ipv6", "cidr", "mac", "uuid", "uuid3", "uuid4", "uuid5",
	"isbn", "isbn10", "isbn13", "creditcard", "ssn", "hexcolor", "rgbcolor", "byte", "password", "date", "duration", "datetime",
	"k8sshortname", "k8slongname",
}
