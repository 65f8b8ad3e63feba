package apiserver

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/munnerz/goautoneg"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"

	"github.com/shoal-edge/shoal/api/custom"
)

// mediaOpenAPIv2 is the Protobuf form of the old document. Clients ask for it with an @ where servers answer with a dot.
const mediaOpenAPIv2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

// serveOpenAPIv2 answers with the old document, which describes all groups at once, in the form that the client prefers.
func (s *Server) serveOpenAPIv2(w http.ResponseWriter, req *request) error {
	forms := map[string]string{
		"com.github.proto-openapi.spec.v2@v1.0+protobuf": mediaOpenAPIv2,
		"com.github.proto-openapi.spec.v2.v1.0+protobuf": mediaOpenAPIv2,
		"json": mediaJSON, "*": mediaJSON,
	}
	header := strings.Join(req.Header.Values("Accept"), ",")
	if header == "" {
		header = mediaJSON
	}
	clauses := goautoneg.ParseAccept(header)
	i := slices.IndexFunc(clauses, func(a goautoneg.Accept) bool { return forms[a.SubType] != "" })
	if i < 0 {
		return errNotAcceptable()
	}
	doc, media := openAPI()[v2JSON], forms[clauses[i].SubType]
	if media == mediaOpenAPIv2 {
		doc = openAPI()[v2Protobuf]
	} else if versions := s.customVersions(); len(versions) > 0 {
		return s.serveMergedOpenAPIv2(w, req, doc, versions)
	}
	return s.serveDocument(w, req, doc, media)
}

// serveMergedOpenAPIv2 answers with the embedded document and the defined kinds in it. The Protobuf form knows the kinds that are always
// served only.
func (s *Server) serveMergedOpenAPIv2(w http.ResponseWriter, req *request, doc *document, versions []*custom.Version) error {
	etag := `"` + doc.hash[:32] + customHash(versions)[:32] + `"`
	w.Header().Set("Etag", etag)
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	if req.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	definitions, paths, err := describeV2(versions)
	if err != nil {
		return fmt.Errorf("apiserver: describe defined kinds: %w", err)
	}
	embedded, err := doc.unpack()
	if err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	w.Header().Set("Content-Type", mediaJSON)
	var out io.Writer = w
	if strings.Contains(req.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		packed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return fmt.Errorf("apiserver: %w", err)
		}
		defer func() { _ = packed.Close() }() // the client has gone: there is nobody to tell
		out = packed
	}
	for _, piece := range splice(embedded, definitions, paths) {
		if _, err := out.Write(piece); err != nil {
			return nil // as above
		}
	}
	return nil
}

// splice puts the members of two JSON objects into those of the document. Only the document's own paths start with a slash.
func splice(doc, definitions, paths []byte) [][]byte {
	const definitionsAt, pathsAt = `{"definitions":{`, `"paths":{`
	first, second := len(definitionsAt), bytes.LastIndex(doc, []byte(pathsAt+`"/`))+len(pathsAt)
	if !bytes.HasPrefix(doc, []byte(definitionsAt)) || second < first {
		return [][]byte{doc}
	}
	members := func(object []byte) []byte { return append(bytes.Clone(object[1:len(object)-1]), ',') }
	return [][]byte{doc[:first], members(definitions), doc[first:second], members(paths), doc[second:]}
}

// rootV2 is where the schemas of the old document are.
const rootV2 = "#/definitions/"

// describeV2 returns the definitions and the paths of defined kinds as the old document has them.
func describeV2(versions []*custom.Version) (definitions, paths []byte, err error) {
	schemas, operations := node{}, node{}
	for _, v := range versions {
		name := schemaName(v)
		schema, err := schemaV2(v)
		if err != nil {
			return nil, nil, err
		}
		list := describeList(v, name)
		properties, _ := list["properties"].(node)
		properties["metadata"] = node{"$ref": rootV2 + metaPrefix + "ListMeta"}
		properties["items"] = node{"type": "array", "items": node{"$ref": rootV2 + name}}
		schemas[name], schemas[name+"List"] = schema, list
		addPaths(operations, v, name, operationV2)
	}
	if definitions, err = json.Marshal(schemas); err != nil {
		return nil, nil, err
	}
	paths, err = json.Marshal(operations)
	return definitions, paths, err
}

// schemaV2 is what the old document can say of a schema: clients that read it cannot have alternatives, or fields beside unknown ones.
func schemaV2(v *custom.Version) (node, error) {
	schema := node{"type": "object", "x-kubernetes-group-version-kind": []any{gvkOf(v, v.Kind.GVK.Kind)}}
	structural := v.Documented()
	if structural == nil || structural.XPreserveUnknownFields {
		return schema, nil
	}
	data, err := json.Marshal(openapiv2.ToStructuralOpenAPIV2(structural).ToKubeOpenAPI())
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		return nil, err
	}
	describeMeta(schema, node{"description": metadataDoc, "$ref": rootV2 + metaPrefix + "ObjectMeta"})
	return schema, nil
}

func operationV2(v *custom.Version, action, answer string, parameters ...string) node {
	described := []any{}
	for _, p := range parameters {
		described = append(described, node{"name": p, "in": "query", "type": "string", "uniqueItems": true})
	}
	return node{
		"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvkOf(v, v.Kind.GVK.Kind), "parameters": described,
		"responses": node{"200": node{"description": "OK", "schema": node{"$ref": rootV2 + answer}}},
	}
}
