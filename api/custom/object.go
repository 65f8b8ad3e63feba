package custom

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/structural"
)

// Object is an object of a defined kind. Stored, it is a Protobuf message of three fields:
//
//	1: its ObjectMeta, as every stored object has it, so that owners, finalizers and labels are found without knowing the kind;
//	2: all the rest as a JSON object;
//	3: the stamp of the schema by which the second one was normalized.
//
// In memory the rest stays as it is stored until somebody looks at it.
type Object struct {
	metav1.TypeMeta
	metav1.ObjectMeta

	of      *Version
	raw     []byte         // the rest as JSON, shared with the store; nil when content was changed
	content map[string]any // the rest; nil until somebody asked
	normal  bool           // the rest is as the version's schema wants it
	other   *form          // the rest in the version that this was converted from; nil when content was changed
}

// The fields of a stored object.
const (
	fieldMetadata = 1
	fieldRest     = 2
	fieldStamp    = 3
)

// Version is the version as which the object is seen.
func (o *Object) Version() *Version { return o.of }

// Kind is the kind of the object, in the version as which it is seen.
func (o *Object) Kind() *api.Kind { return o.of.Kind }

// Content is everything but the type and the metadata. Who changes it calls SetContent.
func (o *Object) Content() map[string]any {
	if o.content == nil {
		o.content = map[string]any{}
		if len(o.raw) > 0 {
			_ = utiljson.Unmarshal(o.raw, &o.content) // Unmarshal has looked at it
		}
	}
	return o.content
}

// SetContent replaces everything but the type and the metadata.
func (o *Object) SetContent(content map[string]any) {
	o.content, o.raw, o.normal, o.other = content, nil, false, nil
}

// normalize applies the version's schema, once.
func (o *Object) normalize() (unknown []string, err error) {
	if o.normal {
		return nil, nil
	}
	content := o.Content()
	unknown, wrong := o.of.schema().Normalize(content)
	if wrong != nil {
		return nil, wrong
	}
	other := o.other
	o.SetContent(content)
	o.normal, o.other = true, other
	return unknown, nil
}

// Whole is the object as one JSON value.
func (o *Object) Whole() (map[string]any, error) {
	meta, err := structural.EncodeMetadata(&o.ObjectMeta)
	if err != nil {
		return nil, fmt.Errorf("custom: metadata: %w", err)
	}
	whole := map[string]any{"apiVersion": o.APIVersion, "kind": o.TypeMeta.Kind, "metadata": meta}
	for name, value := range o.Content() {
		whole[name] = value
	}
	return whole, nil
}

// DeepCopyObject implements runtime.Object.
func (o *Object) DeepCopyObject() runtime.Object {
	made := *o
	meta := o.ObjectMeta
	meta.DeepCopyInto(&made.ObjectMeta)
	if o.content != nil {
		made.content = runtime.DeepCopyJSON(o.content)
	}
	return &made
}

// Marshal makes the stored form.
func (o *Object) Marshal() ([]byte, error) {
	if _, err := o.normalize(); err != nil {
		return nil, err
	}
	meta, err := o.ObjectMeta.Marshal()
	if err != nil {
		return nil, fmt.Errorf("custom: metadata: %w", err)
	}
	rest, err := o.rest()
	if err != nil {
		return nil, err
	}
	value := make([]byte, 0, len(meta)+len(rest)+len(o.of.stamp)+16)
	value = protowire.AppendBytes(protowire.AppendTag(value, fieldMetadata, protowire.BytesType), meta)
	value = protowire.AppendBytes(protowire.AppendTag(value, fieldRest, protowire.BytesType), rest)
	return protowire.AppendString(protowire.AppendTag(value, fieldStamp, protowire.BytesType), o.of.stamp), nil
}

// rest is everything but the type and the metadata as JSON.
func (o *Object) rest() ([]byte, error) {
	if o.raw != nil {
		return o.raw, nil
	}
	rest, err := json.Marshal(o.Content())
	if err != nil {
		return nil, fmt.Errorf("custom: encode: %w", err)
	}
	return rest, nil
}

var errMalformed = errors.New("custom: the stored bytes are malformed")

// Unmarshal reads the stored form. It keeps a reference to value, which nobody may change.
func (o *Object) Unmarshal(value []byte) error {
	made := Object{TypeMeta: o.TypeMeta, of: o.of, raw: []byte("{}")}
	stamp := ""
	for len(value) > 0 {
		number, wire, n := protowire.ConsumeTag(value)
		if n < 0 || wire != protowire.BytesType {
			return errMalformed
		}
		data, m := protowire.ConsumeBytes(value[n:])
		if m < 0 {
			return errMalformed
		}
		value = value[n+m:]
		switch number {
		case fieldMetadata:
			if err := made.ObjectMeta.Unmarshal(data); err != nil {
				return fmt.Errorf("custom: metadata: %w", err)
			}
		case fieldRest:
			if !json.Valid(data) || data[0] != '{' {
				return errMalformed
			}
			made.raw = data
		case fieldStamp:
			stamp = string(data)
		}
	}
	if in := made.of.storedIn(stamp); in != made.of {
		made.of = in
		made.SetGroupVersionKind(in.Kind.GVK)
	}
	made.normal = stamp == made.of.stamp
	*o = made
	if _, err := o.normalize(); err != nil {
		// The schema changed since: what does not fit any more is shown as it is, so that it can be mended.
		o.normal = true
	}
	return nil
}

// MarshalJSON makes the form of the API.
func (o *Object) MarshalJSON() ([]byte, error) {
	head, err := json.Marshal(struct {
		APIVersion string             `json:"apiVersion,omitempty"`
		Kind       string             `json:"kind,omitempty"`
		Metadata   *metav1.ObjectMeta `json:"metadata"`
	}{o.APIVersion, o.TypeMeta.Kind, &o.ObjectMeta})
	if err != nil {
		return nil, fmt.Errorf("custom: encode: %w", err)
	}
	rest, err := o.rest()
	if err != nil {
		return nil, err
	}
	inner := bytes.TrimSpace(rest)
	inner = bytes.TrimSpace(inner[1 : len(inner)-1])
	if len(inner) == 0 {
		return head, nil
	}
	out := append(head[:len(head)-1], ',')
	out = append(out, inner...)
	return append(out, '}'), nil
}

// UnmarshalJSON reads the form of the API. The object is not normalized after it.
func (o *Object) UnmarshalJSON(data []byte) error {
	var content map[string]any
	if err := utiljson.Unmarshal(data, &content); err != nil {
		return err
	}
	_, err := o.read(content)
	return err
}

// FromWhole makes the object what Whole returned, or what a decoder made that has no whole numbers.
func (o *Object) FromWhole(whole map[string]any) error {
	data, err := json.Marshal(whole)
	if err != nil {
		return fmt.Errorf("custom: encode: %w", err)
	}
	return o.UnmarshalJSON(data)
}

// read takes an object apart and owns it. It returns the unknown fields of the metadata.
func (o *Object) read(content map[string]any) (unknown []string, err error) {
	made := Object{of: o.of}
	for name, into := range map[string]*string{"apiVersion": &made.APIVersion, "kind": &made.TypeMeta.Kind} {
		text, ok := content[name].(string)
		if _, found := content[name]; found && !ok {
			return nil, fmt.Errorf("%s must be a string", name)
		}
		*into = text
		delete(content, name)
	}
	if given, found := content["metadata"]; found {
		meta, strict, err := structural.DecodeMetadata(given)
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		made.ObjectMeta = *meta
		for _, at := range strict {
			unknown = append(unknown, "metadata."+at)
		}
		delete(content, "metadata")
	}
	made.SetContent(content)
	*o = made
	return unknown, nil
}
