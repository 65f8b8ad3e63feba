package custom

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api"
)

// Converter converts objects of a definition that has a webhook for that.
type Converter interface {
	// Convert returns the objects, each whole, in the version to, in their order.
	Convert(d *Definition, to string, objects []map[string]any) ([]map[string]any, error)
}

// form is what an object is in another version of its kind.
type form struct {
	of      *Version
	content map[string]any
}

// Conversion is the webhook that converts objects between versions; nil if all versions have the same objects.
func (d *Definition) Conversion() *apiextensionsv1.WebhookConversion { return d.conversion }

// converts reports whether objects of different versions differ in more than the version's name.
func (d *Definition) converts() bool { return d.conversion != nil }

// Converts reports whether a kind's objects may have to be converted by a webhook before a client sees them.
func Converts(kind *api.Kind) bool {
	v := Of(kind)
	return v != nil && v.Definition.converts()
}

// version finds a version by its name, also one that is not served.
func (d *Definition) version(name string) *Version {
	for _, v := range d.all {
		if v.Kind.GVK.Version == name {
			return v
		}
	}
	return nil
}

// as is the object as another version of its kind has it. It shares what it can, and remembers what it was made of.
func (o *Object) as(v *Version) (*Object, error) {
	if v == o.of {
		seen := *o
		return &seen, nil
	}
	if o.other != nil && o.other.of == v {
		return o.turned(v, runtime.DeepCopyJSON(o.other.content)), nil
	}
	if !v.Definition.converts() {
		return o.turned(v, runtime.DeepCopyJSON(o.Content())), nil
	}
	all, err := convert(v, []*Object{o})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// turned is the object with another version's content.
func (o *Object) turned(v *Version, content map[string]any) *Object {
	seen := *o
	seen.of = v
	seen.SetGroupVersionKind(v.Kind.GVK)
	seen.SetContent(content)
	if v.Definition.converts() {
		seen.other = &form{o.of, o.Content()}
	}
	return &seen
}

// Prepare converts objects to the version of kind, all at once, so that seeing them one by one asks the webhook for none of them. It does nothing
// for kinds that need no webhook.
func Prepare(kind *api.Kind, objects []api.Object) error {
	if !Converts(kind) {
		return nil
	}
	v := Of(kind)
	var others []*Object
	for _, obj := range objects {
		if o := obj.(*Object); o.of != v {
			others = append(others, o)
		}
	}
	if len(others) == 0 {
		return nil
	}
	_, err := convert(v, others)
	return err
}

var errConverted = errors.New("custom: the conversion webhook answered with another object")

// convert asks the definition's webhook. Of the metadata it may change labels and annotations, as with upstream.
func convert(v *Version, objects []*Object) ([]*Object, error) {
	d := v.Definition
	if d.converter == nil {
		return nil, fmt.Errorf("custom: nobody converts %s", d.Name)
	}
	whole := make([]map[string]any, len(objects))
	for i, o := range objects {
		var err error
		if whole[i], err = o.Whole(); err != nil {
			return nil, err
		}
	}
	converted, err := d.converter.Convert(d, v.Kind.GVK.GroupVersion().String(), whole)
	if err != nil {
		return nil, fmt.Errorf("conversion webhook for %s failed: %w", objects[0].GroupVersionKind(), err)
	}
	if len(converted) != len(objects) {
		return nil, fmt.Errorf("conversion webhook for %s failed: returned %d objects, expected %d", objects[0].GroupVersionKind(), len(converted), len(objects))
	}
	made := make([]*Object, len(objects))
	for i, o := range objects {
		got := &Object{of: v}
		if _, err := got.read(maps.Clone(converted[i])); err != nil {
			return nil, fmt.Errorf("conversion webhook for %s failed: %w", o.GroupVersionKind(), err)
		}
		if got.GroupVersionKind() != v.Kind.GVK || got.Name != o.Name || got.Namespace != o.Namespace || got.UID != o.UID {
			return nil, fmt.Errorf("%w: %s %s/%s for %s/%s", errConverted, got.GroupVersionKind(), got.Namespace, got.Name, o.Namespace, o.Name)
		}
		made[i] = o.turned(v, got.Content())
		made[i].Labels, made[i].Annotations = got.Labels, got.Annotations
	}
	return made, nil
}

// storedIn is the version by whose schema a stored object was normalized. Where versions differ by more than their names it may be another one
// than what is stored now.
func (v *Version) storedIn(stamp string) *Version {
	if !v.Definition.converts() {
		return v
	}
	name, _, _ := strings.Cut(stamp, "/")
	if other := v.Definition.version(name); other != nil {
		return other
	}
	return v
}
