package fieldmanager

import (
	"maps"
	"slices"

	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// Document is the merge schema in the form in which it is embedded: which lists are sets or maps, by which keys, and what is
// changed as a whole only. The library's own types have no JSON form.
type Document struct {
	// Kinds names the type of each kind, by API version and kind: "apps/v1/Deployment".
	Kinds map[string]string `json:"kinds"`
	Types map[string]Type   `json:"types"`
}

// Type is a type, or the name of one.
type Type struct {
	Ref      string                   `json:"ref,omitempty"`
	Override *smd.ElementRelationship `json:"override,omitempty"` // of the type that Ref names
	Nullable bool                     `json:"nullable,omitempty"`
	Scalar   *smd.Scalar              `json:"scalar,omitempty"`
	List     *List                    `json:"list,omitempty"`
	Map      *Map                     `json:"map,omitempty"`
}

// List is a list, set or associative list.
type List struct {
	Items        Type                    `json:"items"`
	Relationship smd.ElementRelationship `json:"rel,omitempty"`
	Keys         []string                `json:"keys,omitempty"`
}

// Map is a struct, a map, or both.
type Map struct {
	Fields       map[string]Field        `json:"fields,omitempty"`
	Values       Type                    `json:"values,omitzero"` // of keys that are no field
	Relationship smd.ElementRelationship `json:"rel,omitempty"`
}

// Field is a field of a struct. Only a scalar default matters: that of a list's key.
type Field struct {
	Type
	Default any `json:"default,omitempty"`
}

// NewDocument describes a schema.
func NewDocument(kinds map[string]string, types []smd.TypeDef) *Document {
	d := &Document{Kinds: kinds, Types: map[string]Type{}}
	for _, t := range types {
		d.Types[t.Name] = typeOf(smd.TypeRef{Inlined: t.Atom})
	}
	return d
}

func typeOf(r smd.TypeRef) Type {
	if r.NamedType != nil {
		return Type{Ref: *r.NamedType, Override: r.ElementRelationship, Nullable: r.Nullable}
	}
	t := Type{Scalar: r.Inlined.Scalar, Nullable: r.Nullable}
	if l := r.Inlined.List; l != nil {
		t.List = &List{Items: typeOf(l.ElementType), Relationship: l.ElementRelationship, Keys: l.Keys}
	}
	if m := r.Inlined.Map; m != nil {
		t.Map = &Map{Values: typeOf(m.ElementType), Relationship: m.ElementRelationship}
		for _, f := range m.Fields {
			if t.Map.Fields == nil {
				t.Map.Fields = map[string]Field{}
			}
			field := Field{Type: typeOf(f.Type)}
			switch f.Default.(type) {
			case string, bool, float64:
				field.Default = f.Default
			}
			t.Map.Fields[f.Name] = field
		}
	}
	return t
}

// types makes the library's form again.
func (d *Document) types() []smd.TypeDef {
	all := make([]smd.TypeDef, 0, len(d.Types))
	for name, t := range d.Types {
		all = append(all, smd.TypeDef{Name: name, Atom: t.atom()})
	}
	return all
}

func (t *Type) reference() smd.TypeRef {
	if t.Ref != "" {
		return smd.TypeRef{NamedType: &t.Ref, ElementRelationship: t.Override, Nullable: t.Nullable}
	}
	return smd.TypeRef{Inlined: t.atom(), Nullable: t.Nullable}
}

func (t *Type) atom() smd.Atom {
	a := smd.Atom{Scalar: t.Scalar}
	if l := t.List; l != nil {
		a.List = &smd.List{ElementType: l.Items.reference(), ElementRelationship: l.Relationship, Keys: l.Keys}
	}
	if m := t.Map; m != nil {
		into := &smd.Map{ElementType: m.Values.reference(), ElementRelationship: m.Relationship}
		for _, name := range slices.Sorted(maps.Keys(m.Fields)) {
			f := m.Fields[name]
			into.Fields = append(into.Fields, smd.StructField{Name: name, Type: f.reference(), Default: f.Default})
		}
		a.Map = into
	}
	return a
}
