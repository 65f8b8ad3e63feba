// Command openapigen writes the OpenAPI documents, v3 and v2, that the apiserver embeds. It takes upstream's own documents from the
// k8s.io/kubernetes module, keeps the paths that shoal serves and the schemas that these reach, and compresses the rest.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/openapigen/own"
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
	if err := writeV2(module, version, filepath.Join(out, "v2")); err != nil {
		return err
	}
	specs := filepath.Join(module, "api", "openapi-spec", "v3")
	for gv, paths := range servedPaths() {
		if strings.HasSuffix(gv.Group, own.Suffix) {
			if err := describeOwn(specs, out, gv); err != nil {
				return fmt.Errorf("%s: %w", gv, err)
			}
			continue
		}
		name := "apis__" + gv.Group + "__" + gv.Version
		if gv.Group == "" {
			name = "api__" + gv.Version
		}
		if err := trim(filepath.Join(specs, name+"_openapi.json"), filepath.Join(out, name+".json.gz"), paths); err != nil {
			return fmt.Errorf("%s: %w", gv, err)
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

func trim(from, to string, keep map[string]bool) error {
	doc, err := read(from)
	if err != nil {
		return err
	}
	for path := range doc.Paths {
		if !keep[path] {
			delete(doc.Paths, path)
		}
	}
	return doc.write(to)
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

// write keeps the schemas that the paths reach.
func (doc *document) write(to string) error {
	reached := map[string]any{}
	reach(doc.Paths, doc.Components.Schemas, reached)
	doc.Components.Schemas = reached
	trimmed, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return compress(trimmed, to)
}

// describeOwn writes the document of a group of shoal's own.
func describeOwn(specs, out string, gv schema.GroupVersion) error {
	doc, err := read(filepath.Join(specs, own.TemplateDocument+"_openapi.json"))
	if err != nil {
		return err
	}
	sources, err := sourceFolder()
	if err != nil {
		return err
	}
	schemas, err := own.Schemas(sources, own.V3())
	if err != nil {
		return err
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
			return err
		}
		for path, operations := range made {
			paths[path] = operations.(map[string]any)
		}
	}
	doc.Paths = paths
	return doc.write(filepath.Join(out, "apis__"+gv.Group+"__"+gv.Version+".json.gz"))
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

func compress(data []byte, to string) error {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, buf.Bytes(), 0o644)
}
