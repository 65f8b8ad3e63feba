package custom

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Decoder reads objects of defined kinds from what clients send. It is a runtime.Decoder like those of built-in kinds: unknown
// fields and those given twice are strict decoding errors, which come with the object, in its normalized form.
type Decoder struct {
	YAML bool
	// Strict looks for unknown fields and such that are given twice.
	Strict bool
}

// Decode implements runtime.Decoder. It needs an *Object to read into.
func (d Decoder) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	o, ok := into.(*Object)
	if !ok {
		return nil, nil, fmt.Errorf("custom: decode into a %T", into)
	}
	var strict []error
	if d.YAML {
		if d.Strict {
			if _, err := yaml.YAMLToJSONStrict(data); err != nil {
				strict = append(strict, err)
			}
		}
		var err error
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil, nil, err
		}
	}
	var content map[string]any
	twice, err := kjson.UnmarshalStrict(data, &content)
	if err != nil {
		return nil, nil, err
	}
	if content == nil {
		content = map[string]any{}
	}
	unknown, err := o.read(content)
	if err != nil {
		return nil, nil, err
	}
	got := o.GroupVersionKind()
	if got.Kind == "" {
		return nil, &got, runtime.NewMissingKindErr(string(data))
	}
	if got.Version == "" {
		return nil, &got, runtime.NewMissingVersionErr(string(data))
	}
	if got.Kind != o.of.Kind.GVK.Kind {
		return nil, &got, fmt.Errorf("kind must be %s", o.of.Kind.GVK.Kind)
	}
	dropped, err := o.normalize()
	if err != nil {
		return nil, &got, err
	}
	if !d.Strict {
		return o, &got, nil
	}
	strict = append(strict, twice...)
	for _, path := range slices.Concat(unknown, dropped) {
		strict = append(strict, fmt.Errorf("unknown field %q", path))
	}
	if len(strict) > 0 {
		return o, &got, runtime.NewStrictDecodingError(strict)
	}
	return o, &got, nil
}
