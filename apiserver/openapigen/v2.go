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

// writeV2 makes the one OpenAPI v2 document, in its JSON and its Protobuf form.
func writeV2(module, version, out string) error {
	data, err := os.ReadFile(filepath.Join(module, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("parse swagger.json: %w", err)
	}
	keep := map[string]bool{"/version/": true}
	for _, paths := range servedPaths() {
		for path := range paths {
			keep[path] = true
		}
	}
	paths := doc["paths"].(map[string]any)
	if err := addOwnV2(doc); err != nil {
		return err
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
		return err
	}
	if err := compress(data, filepath.Join(out, "swagger.json.gz")); err != nil {
		return err
	}
	parsed, err := openapiv2.ParseDocument(data)
	if err != nil {
		return fmt.Errorf("read swagger.json as Protobuf: %w", err)
	}
	if data, err = (proto.MarshalOptions{Deterministic: true}).Marshal(parsed); err != nil {
		return err
	}
	return compress(data, filepath.Join(out, "swagger.pb.gz"))
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
