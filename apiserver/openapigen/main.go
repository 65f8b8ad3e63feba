// Command openapigen writes the OpenAPI documents, v3 and v2, that the apiserver embeds. It takes upstream's own documents from the
// k8s.io/kubernetes module, keeps the paths that shoal serves and the schemas that these reach, and compresses the rest.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/openapigen/own"
	"github.com/shoal-edge/shoal/apiserver/openapipack"
	"github.com/shoal-edge/shoal/apiserver/reviews"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: openapigen OUTPUT-FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "openapigen:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	found, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}\n{{.Version}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return fmt.Errorf("find k8s.io/kubernetes: %w", err)
	}
	module, version, _ := strings.Cut(strings.TrimSpace(string(found)), "\n")
	documents, err := describeV2(module, version)
	if err != nil {
		return err
	}
	specs := filepath.Join(module, "api", "openapi-spec", "v3")
	for gv, paths := range servedPaths() {
		if strings.HasSuffix(gv.Group, own.Suffix) {
			if documents["apis__"+gv.Group+"__"+gv.Version+".json"], err = describeOwn(specs, gv); err != nil {
				return fmt.Errorf("%s: %w", gv, err)
			}
			continue
		}
		name := "apis__" + gv.Group + "__" + gv.Version
		if gv.Group == "" {
			name = "api__" + gv.Version
		}
		if documents[name+".json"], err = trim(filepath.Join(specs, name+"_openapi.json"), paths); err != nil {
			return fmt.Errorf("%s: %w", gv, err)
		}
	}
	return write(documents, out)
}

// write compresses the documents, which have the names of their files.
func write(documents map[string][]byte, out string) error {
	for name, document := range documents {
		base := documents[openapipack.Base]
		if name == openapipack.Base {
			base = nil
		}
		packed, err := openapipack.Pack(document, base)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(out, name+openapipack.Suffix), packed, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// servedPaths are the paths to keep, by group and version.
func servedPaths() map[schema.GroupVersion]map[string]bool {
	all := map[schema.GroupVersion]map[string]bool{}
	add := func(gv schema.GroupVersion, path string) {
		prefix := "/apis/" + gv.String() + "/"
		if gv.Group == "" {
			prefix = "/api/" + gv.Version + "/"
		}
		if all[gv] == nil {
			all[gv] = map[string]bool{prefix: true}
		}
		all[gv][prefix+path] = true
	}
	for _, k := range api.Served() {
		gv, root := k.GVK.GroupVersion(), k.Resource
		if k.Namespaced {
			add(gv, k.Resource)
			root = "namespaces/{namespace}/" + k.Resource
		}
		add(gv, root)
		add(gv, root+"/{name}")
		for _, sub := range k.Subresources {
			add(gv, root+"/{name}/"+sub)
			if sub == "proxy" {
				add(gv, root+"/{name}/proxy/{path}")
			}
		}
	}
	for _, r := range reviews.All() {
		root := r.Resource
		if r.Namespaced {
			root = "namespaces/{namespace}/" + r.Resource
		}
		add(r.GVK.GroupVersion(), root)
	}
	return all
}

// document is an OpenAPI document whose parts are looked at only as far as needed.
type document struct {
	OpenAPI    string                    `json:"openapi"`
	Info       json.RawMessage           `json:"info"`
	Paths      map[string]map[string]any `json:"paths"`
	Components struct {
		Schemas         map[string]any  `json:"schemas"`
		SecuritySchemes json.RawMessage `json:"securitySchemes,omitempty"`
	} `json:"components"`
}

func trim(from string, keep map[string]bool) ([]byte, error) {
	doc, err := read(from)
	if err != nil {
		return nil, err
	}
	for path := range doc.Paths {
		if !keep[path] {
			delete(doc.Paths, path)
		}
	}
	return doc.encode()
}

func read(from string) (*document, error) {
	data, err := os.ReadFile(from)
	if err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("parse %s: %w", from, err)
	}
	return &doc, nil
}

// encode makes the document, with the schemas that the paths reach.
func (doc *document) encode() ([]byte, error) {
	reached := map[string]any{}
	reach(doc.Paths, doc.Components.Schemas, reached)
	doc.Components.Schemas = reached
	return json.Marshal(doc)
}

// describeOwn makes the document of a group of shoal's own.
func describeOwn(specs string, gv schema.GroupVersion) ([]byte, error) {
	doc, err := read(filepath.Join(specs, own.TemplateDocument+"_openapi.json"))
	if err != nil {
		return nil, err
	}
	sources, err := sourceFolder()
	if err != nil {
		return nil, err
	}
	schemas, err := own.Schemas(sources, own.V3())
	if err != nil {
		return nil, err
	}
	for name, schema := range schemas {
		doc.Components.Schemas[name] = schema
	}
	root := "/apis/" + gv.String() + "/"
	paths := map[string]map[string]any{root: {"get": map[string]any{"description": "get available resources"}}}
	upstream := map[string]any{}
	for path, operations := range doc.Paths {
		upstream[path] = operations
	}
	for _, k := range own.Kinds() {
		if k.GVK.GroupVersion() != gv {
			continue
		}
		made, err := own.Paths(k, upstream)
		if err != nil {
			return nil, err
		}
		for path, operations := range made {
			paths[path] = operations.(map[string]any)
		}
	}
	doc.Paths = paths
	return doc.encode()
}

// sourceFolder is where shoal's module is.
func sourceFolder() (string, error) {
	found, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find this module: %w", err)
	}
	return strings.TrimSpace(string(found)), nil
}

// reach adds to reached every schema that v refers to, and those that they refer to.
func reach(v any, schemas, reached map[string]any) {
	walk(v, func(m map[string]any) {
		ref, _ := m["$ref"].(string)
		name, ok := strings.CutPrefix(ref, "#/components/schemas/")
		if !ok || reached[name] != nil || schemas[name] == nil {
			return
		}
		reached[name] = schemas[name]
		reach(schemas[name], schemas, reached)
	})
}

func walk(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case map[string]map[string]any:
		for _, child := range v {
			walk(child, visit)
		}
	case map[string]any:
		visit(v)
		for _, child := range v {
			walk(child, visit)
		}
	case []any:
		for _, child := range v {
			walk(child, visit)
		}
	}
}
