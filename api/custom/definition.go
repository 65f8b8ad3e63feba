// Package custom owns the kinds that CustomResourceDefinitions make: an api.Kind for each version that one defines, and the form
// in which their objects are stored, which the store can keep, index and replicate without knowing any definition.
//
// The package is pure, as package api is.
package custom

import (
	"fmt"
	"strconv"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/definition"
	"github.com/shoal-edge/shoal/api/structural"
)

// Definition is what a stored CustomResourceDefinition defines. It keeps the definition's bytes, which the store has anyway, and
// reads the schemas out of them when the first object needs one.
type Definition struct {
	Name     string
	Group    string
	ListKind string
	// Terminating definitions let objects be read and deleted, but none be created.
	Terminating bool
	// Served are the versions that clients may ask for. It is empty until the names are accepted.
	Served []*Version
	// Storage is the version by whose schema objects are stored. Nil until the names are accepted.
	Storage *Version

	all        []*Version // also those that are not served
	conversion *apiextensionsv1.WebhookConversion
	converter  Converter
}

// Version is one version of a defined kind.
type Version struct {
	Kind       *api.Kind
	Definition *Definition
	// Deprecated is what its users are told. Empty: it is not deprecated.
	Deprecated string

	identity string
	scale    *apiextensionsv1.CustomResourceSubresourceScale
	status   bool
	stamp    string
	stored   []byte // the definition
	schema   func() *structural.Schema
}

// Of is the version of a kind that a definition made, or nil for a built-in kind.
func Of(kind *api.Kind) *Version {
	if kind == nil {
		return nil
	}
	if o, ok := kind.New().(*Object); ok {
		return o.of
	}
	return nil
}

// New reads a stored CustomResourceDefinition. Without a converter, one that has a webhook for conversions serves the version that is stored only.
func New(value []byte, converter Converter) (*Definition, error) {
	var d apiextensionsv1.CustomResourceDefinition
	if err := d.Unmarshal(value); err != nil {
		return nil, fmt.Errorf("custom: decode a definition: %w", err)
	}
	made := &Definition{
		Name: d.Name, Group: d.Spec.Group, ListKind: d.Status.AcceptedNames.ListKind, Terminating: d.DeletionTimestamp != nil,
	}
	if !definition.Holds(&d, apiextensionsv1.Established) {
		return made, nil
	}
	if c := d.Spec.Conversion; c != nil && c.Strategy == apiextensionsv1.WebhookConverter {
		made.conversion, made.converter = c.Webhook, converter
	}
	every := made.conversion == nil || converter != nil
	for i := range d.Spec.Versions {
		v := newVersion(made, &d, &d.Spec.Versions[i], value)
		made.all = append(made.all, v)
		if d.Spec.Versions[i].Storage {
			made.Storage = v
		}
		if d.Spec.Versions[i].Served && (every || d.Spec.Versions[i].Storage) {
			made.Served = append(made.Served, v)
		}
	}
	if made.Storage == nil {
		return nil, fmt.Errorf("custom: %s has no storage version", d.Name)
	}
	for _, v := range made.all {
		v.storedAs(made.Storage)
	}
	return made, nil
}

// storedAs ties a version to the one that is stored. Where a webhook converts, objects may be stored in the version that was stored before.
func (v *Version) storedAs(storage *Version) {
	if v == storage && !v.Definition.converts() {
		return
	}
	v.Kind.FromStored = func(o api.Object) (api.Object, error) { return v.see(o.(*Object)) }
	if v == storage {
		return
	}
	v.Kind.Stored = storage.Kind
	v.Kind.ToStored = func(o api.Object) (api.Object, error) { return v.store(o.(*Object), storage) }
}

// store is an object that somebody sent, as it is stored. A webhook is given what this version's schema makes of it.
func (v *Version) store(o *Object, storage *Version) (api.Object, error) {
	if v.Definition.converts() {
		v.Kind.Default(o)
	}
	return o.as(storage)
}

// see is a stored object as this version shows it.
func (v *Version) see(o *Object) (*Object, error) {
	if o.of == v {
		return o, nil
	}
	seen, err := o.as(v)
	if err != nil {
		return nil, err
	}
	if _, err := seen.normalize(); err != nil {
		seen.normal = true // as it is, so that it can be mended
	}
	return seen, nil
}

func newVersion(of *Definition, d *apiextensionsv1.CustomResourceDefinition, version *apiextensionsv1.CustomResourceDefinitionVersion, stored []byte) *Version {
	names := d.Status.AcceptedNames
	v := &Version{
		Definition: of, stored: stored,
		identity: string(d.UID) + "/" + strconv.FormatInt(d.Generation, 10) + "/" + names.Kind,
		stamp:    version.Name + "/" + strconv.FormatInt(d.Generation, 10),
		Kind: &api.Kind{
			GVK:      schema.GroupVersionKind{Group: d.Spec.Group, Version: version.Name, Kind: names.Kind},
			Resource: names.Plural, Singular: names.Singular, ShortNames: names.ShortNames, Categories: names.Categories,
			Namespaced: d.Spec.Scope == apiextensionsv1.NamespaceScoped, NeedsRevision: true,
			Verbs: []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"},
		},
	}
	if version.Deprecated {
		v.Deprecated = fmt.Sprintf("%s %s is deprecated", v.Kind.GVK.GroupVersion(), v.Kind.GVK.Kind)
		if version.DeprecationWarning != nil {
			v.Deprecated = *version.DeprecationWarning
		}
	}
	if sub := version.Subresources; sub != nil {
		if v.status = sub.Status != nil; v.status {
			v.Kind.Subresources = append(v.Kind.Subresources, "status")
		}
		if v.scale = sub.Scale; v.scale != nil {
			v.Kind.Subresources = append(v.Kind.Subresources, "scale")
		}
	}
	name := version.Name
	v.schema = sync.OnceValue(func() *structural.Schema { return readSchema(stored, name) })
	v.install()
	v.columns(version.AdditionalPrinterColumns)
	v.selectable(version.SelectableFields)
	return v
}

// readSchema finds a version's schema. It was validated when it was stored; one that is not structural all the same lets nothing
// pass.
func readSchema(stored []byte, version string) *structural.Schema {
	nothing := func() *structural.Schema {
		s, err := structural.New(&apiextensions.JSONSchemaProps{Type: "object"})
		if err != nil {
			panic(err) // it is the same schema always
		}
		return s
	}
	props := schemaOf(stored, version)
	if props == nil {
		return nothing()
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, &internal, nil); err != nil {
		return nothing()
	}
	s, err := structural.New(&internal)
	if err != nil {
		return nothing()
	}
	return s
}

func schemaOf(stored []byte, version string) *apiextensionsv1.JSONSchemaProps {
	var d apiextensionsv1.CustomResourceDefinition
	if err := d.Unmarshal(stored); err != nil {
		return nil
	}
	for _, v := range d.Spec.Versions {
		if v.Name == version && v.Schema != nil {
			return v.Schema.OpenAPIV3Schema
		}
	}
	return nil
}

// OpenAPI is the version's schema as its author wrote it, for documentation. It may be nil.
func (v *Version) OpenAPI() *apiextensionsv1.JSONSchemaProps {
	return schemaOf(v.stored, v.Kind.GVK.Version)
}

// Documented is Structural with the descriptions, which the one that is kept lacks. It is made anew and may be nil.
func (v *Version) Documented() *structuralschema.Structural {
	props := v.OpenAPI()
	if props == nil {
		return nil
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, &internal, nil); err != nil {
		return nil
	}
	s, err := structuralschema.NewStructural(&internal)
	if err != nil {
		return nil // of a schema that is not structural nothing can be said
	}
	return s
}

// Identity changes whenever the version's schema or name may have.
func (v *Version) Identity() string { return v.identity }

// Structural is the version's schema as upstream's packages have it. Nobody may change it.
func (v *Version) Structural() *structuralschema.Structural { return v.schema().Structural() }
