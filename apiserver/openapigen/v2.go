package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-edge/shoal/apiserver/openapigen/own"
)

// describeV2 makes the one OpenAPI v2 document, in its JSON and its Protobuf form.
func describeV2(module, version string) (map[string][]byte, error) {
	data, err := os.ReadFile(filepath.Join(module, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("parse swagger.json: %w", err)
	}
	keep := map[string]bool{"/version/": true}
	for _, paths := range servedPaths() {
		for path := range paths {
			keep[path] = true
		}
	}
	paths := doc["paths"].(map[string]any)
	if err := addOwnV2(doc); err != nil {
		return nil, err
	}
	for path := range paths {
		if !keep[path] {
			delete(paths, path)
		}
	}
	for _, section := range []string{"parameters", "definitions"} {
		reached := map[string]any{}
		reachIn(section, doc, doc["paths"], reached)
		doc[section] = reached
	}
	doc["info"] = map[string]any{"title": "Kubernetes", "version": version}
	if data, err = json.Marshal(doc); err != nil {
		return nil, err
	}
	parsed, err := openapiv2.ParseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("read swagger.json as Protobuf: %w", err)
	}
	binary, err := proto.MarshalOptions{Deterministic: true}.Marshal(parsed)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{filepath.Join("v2", "swagger.json"): data, filepath.Join("v2", "swagger.pb"): binary}, nil
}

// addOwnV2 adds shoal's own kinds to the document.
func addOwnV2(doc map[string]any) error {
	sources, err := sourceFolder()
	if err != nil {
		return err
	}
	schemas, err := own.Schemas(sources, own.V2())
	if err != nil {
		return err
	}
	for name, schema := range schemas {
		doc["definitions"].(map[string]any)[name] = schema
	}
	paths := doc["paths"].(map[string]any)
	for _, k := range own.Kinds() {
		made, err := own.Paths(k, paths)
		if err != nil {
			return err
		}
		paths["/apis/"+k.GVK.GroupVersion().String()+"/"] = paths["/apis/storage.k8s.io/v1/"]
		for path, operations := range made {
			paths[path] = operations
		}
	}
	return nil
}

// reachIn adds to reached what v refers to in a section, directly or by way of either section.
func reachIn(section string, doc map[string]any, v any, reached map[string]any) {
	seen := map[string]bool{}
	var visit func(v any)
	visit = func(v any) {
		walk(v, func(m map[string]any) {
			ref, _ := m["$ref"].(string)
			in, name, ok := strings.Cut(strings.TrimPrefix(ref, "#/"), "/")
			if !ok || seen[ref] {
				return
			}
			seen[ref] = true
			all, _ := doc[in].(map[string]any)
			if in == section {
				reached[name] = all[name]
			}
			visit(all[name])
		})
	}
	visit(v)
}
