package fieldmanager

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

//go:generate go run ./schemagen schema.json.gz

// compressed is the Document of the served kinds. It costs no memory before the first write that is tracked or applied.
//
//go:embed schema.json.gz
var compressed []byte

// parser finds the type of a kind.
type parser struct {
	typed.Parser
	kinds map[string]string
}

// schemas is parsed once: what is embedded does not change.
var schemas = sync.OnceValues(func() (*parser, error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("fieldmanager: the embedded schema: %w", err)
	}
	var doc Document
	if err := json.NewDecoder(unpacked).Decode(&doc); err != nil {
		return nil, fmt.Errorf("fieldmanager: the embedded schema: %w", err)
	}
	p := &parser{kinds: doc.Kinds}
	p.Schema.Types = doc.types()
	return p, nil
})

// Key is what a Document calls a kind.
func Key(gvk schema.GroupVersionKind) string { return gvk.GroupVersion().String() + "/" + gvk.Kind }

// typeOf returns the type of a kind. One that upstream does not describe is merged by what its objects look like: maps by
// their keys, lists as a whole.
func (p *parser) typeOf(gvk schema.GroupVersionKind) typed.ParseableType {
	if name, ok := p.kinds[Key(gvk)]; ok {
		return p.Type(name)
	}
	return typed.DeducedParseableType
}

// Describes reports whether the embedded schema has a kind.
func Describes(gvk schema.GroupVersionKind) bool {
	p, err := schemas()
	return err == nil && p.kinds[Key(gvk)] != ""
}
