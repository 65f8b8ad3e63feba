package apiserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api/custom"
)

// metadataDoc describes the metadata of every object.
const metadataDoc = "Standard object's metadata. More info: " +
	"https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"

// schemaRoot is where the schemas of a document are.
const schemaRoot = "#/components/schemas/"

// The schemas of metadata, which the documents of defined kinds borrow from an embedded one.
const (
	metaPrefix = "io.k8s.apimachinery.pkg.apis.meta.v1."
	metaSource = "apis/coordination.k8s.io/v1"
)

// node is a part of an OpenAPI document.
type node = map[string]any

// customDocuments are the served versions of defined kinds by the path of their document, such as "apis/example.com/v1". A document is made
// when somebody asks for it.
func (s *Server) customDocuments() map[string][]*custom.Version {
	all := map[string][]*custom.Version{}
	for _, v := range s.customVersions() {
		path := "apis/" + v.Kind.GVK.GroupVersion().String()
		if _, embedded := openAPI()[path]; !embedded {
			all[path] = append(all[path], v)
		}
	}
	return all
}

// customHash changes whenever a document may.
func customHash(versions []*custom.Version) string {
	sum := sha256.New()
	for _, v := range versions {
		_, _ = fmt.Fprintln(sum, v.Definition.Name, v.Identity()) // a hash takes everything
	}
	return strings.ToUpper(hex.EncodeToString(sum.Sum(nil)))
}

func (s *Server) serveCustomOpenAPI(w http.ResponseWriter, req *request, path string, versions []*custom.Version) error {
	hash := customHash(versions)
	if moved := s.openAPIHash(w, req, path, hash); moved {
		return nil
	}
	doc, err := customDocument(path, versions)
	if err != nil {
		return fmt.Errorf("apiserver: describe %s: %w", path, err)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("apiserver: describe %s: %w", path, err)
	}
	etag := `"` + hash + `"`
	w.Header().Set("Etag", etag)
	w.Header().Set("Vary", "Accept")
	if req.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", mediaJSON)
	_, _ = w.Write(data) // the client has gone: there is nobody to tell
	return nil
}

// customDocument describes the kinds of one group and version.
func customDocument(path string, versions []*custom.Version) (node, error) {
	schemas, err := metaSchemas()
	if err != nil {
		return nil, err
	}
	paths := node{"/" + path + "/": node{"get": node{"description": "get available resources"}}}
	for _, v := range versions {
		name := schemaName(v)
		schema, err := describe(v)
		if err != nil {
			return nil, err
		}
		schemas[name], schemas[name+"List"] = schema, describeList(v, name)
		addPaths(paths, v, name, operation)
	}
	return node{
		"openapi": "3.0.0", "info": node{"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
		"paths": paths, "components": node{"schemas": schemas},
	}, nil
}

// metaSchemas are the schemas that those of all kinds refer to.
func metaSchemas() (node, error) {
	data, err := openAPI()[metaSource].unpack()
	if err != nil {
		return nil, err
	}
	var doc struct {
		Components struct{ Schemas node } `json:"components"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	schemas := node{}
	for name, schema := range doc.Components.Schemas {
		if strings.HasPrefix(name, metaPrefix) {
			schemas[name] = schema
		}
	}
	return schemas, nil
}

// schemaName is the group's domain backwards, the version and the kind: "com.example.v1.Widget".
func schemaName(v *custom.Version) string {
	parts := strings.Split(v.Kind.GVK.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, v.Kind.GVK.Version, v.Kind.GVK.Kind), ".")
}

// gvkOf names a kind as documents do.
func gvkOf(v *custom.Version, kind string) node {
	return node{"group": v.Kind.GVK.Group, "version": v.Kind.GVK.Version, "kind": kind}
}

// describe is the definition's own schema, with what every object has.
func describe(v *custom.Version) (node, error) {
	schema := node{"type": "object"}
	if props := v.OpenAPI(); props != nil {
		data, err := json.Marshal(props)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &schema); err != nil {
			return nil, err
		}
	}
	describeMeta(schema, node{"description": metadataDoc, "allOf": []any{node{"$ref": schemaRoot + metaPrefix + "ObjectMeta"}}})
	schema["x-kubernetes-group-version-kind"] = []any{gvkOf(v, v.Kind.GVK.Kind)}
	return schema, nil
}

// describeMeta adds what every object has.
func describeMeta(schema, metadata node) {
	properties, ok := schema["properties"].(node)
	if !ok {
		properties = node{}
		schema["properties"] = properties
	}
	docs := metav1.TypeMeta{}.SwaggerDoc()
	properties["apiVersion"] = node{"type": "string", "description": docs["apiVersion"]}
	properties["kind"] = node{"type": "string", "description": docs["kind"]}
	properties["metadata"] = metadata
}

// describeList describes a list of the kind whose schema is called item.
func describeList(v *custom.Version, item string) node {
	docs := metav1.TypeMeta{}.SwaggerDoc()
	return node{
		"description": v.Definition.ListKind + " is a list of " + v.Kind.GVK.Kind, "type": "object", "required": []string{"items"},
		"properties": node{
			"apiVersion": node{"type": "string", "description": docs["apiVersion"]},
			"kind":       node{"type": "string", "description": docs["kind"]},
			"metadata":   node{"allOf": []any{node{"$ref": schemaRoot + metaPrefix + "ListMeta"}}},
			"items":      node{"type": "array", "items": node{"$ref": schemaRoot + item}},
		},
		"x-kubernetes-group-version-kind": []any{gvkOf(v, v.Definition.ListKind)},
	}
}

// operate describes an operation on a kind: what answers it, and what may be asked for in the query.
type operate func(v *custom.Version, action, answer string, parameters ...string) node

func operation(v *custom.Version, action, answer string, parameters ...string) node {
	described := []any{}
	for _, p := range parameters {
		described = append(described, node{"name": p, "in": "query", "schema": node{"type": "string", "uniqueItems": true}})
	}
	return node{
		"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvkOf(v, v.Kind.GVK.Kind), "parameters": described,
		"responses": node{"200": node{"description": "OK", "content": node{mediaJSON: node{"schema": node{"$ref": schemaRoot + answer}}}}},
	}
}

// addPaths describes the operations, as far as clients look at them: which there are, of which kind, and what a write may ask for.
func addPaths(paths node, v *custom.Version, name string, op operate) {
	write := []string{"dryRun", "fieldManager", "fieldValidation"}
	root := "/apis/" + v.Kind.GVK.GroupVersion().String()
	all := root + "/" + v.Kind.Resource
	collection := all
	if v.Kind.Namespaced {
		paths[all] = node{"get": op(v, "list", name+"List")}
		collection = root + "/namespaces/{namespace}/" + v.Kind.Resource
	}
	paths[collection] = node{
		"get": op(v, "list", name+"List"), "post": op(v, "post", name, write...),
		"delete": op(v, "deletecollection", metaPrefix+"Status", "dryRun"),
	}
	item := func() node {
		return node{
			"get": op(v, "get", name), "put": op(v, "put", name, write...), "patch": op(v, "patch", name, append(slices.Clone(write), "force")...),
		}
	}
	one := item()
	one["delete"] = op(v, "delete", metaPrefix+"Status", "dryRun")
	paths[collection+"/{name}"] = one
	if v.Kind.HasSubresource("status") {
		paths[collection+"/{name}/status"] = item()
	}
}
