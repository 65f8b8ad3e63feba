package apiserver_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"github.com/google/go-cmp/cmp"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/shoal-edge/shoal/api"
)

// TestOpenAPIv2: both forms of the old document describe every kind, and name each of its types.
func TestOpenAPIv2(t *testing.T) {
	b := newBed(t)
	type kind struct{ Group, Version, Kind string }
	var doc struct {
		Swagger     string
		Definitions map[string]struct {
			Kinds []kind `json:"x-kubernetes-group-version-kind"`
		}
		Parameters map[string]any
	}
	answer, data := b.do(call{path: "/openapi/v2"})
	decode(t, data, &doc)
	if answer.Header.Get("Content-Type") != "application/json" || doc.Swagger != "2.0" {
		t.Errorf("%s %q", answer.Header, doc.Swagger)
	}
	for _, k := range api.Served() {
		want, found := kind{k.GVK.Group, k.GVK.Version, k.GVK.Kind}, false
		for _, d := range doc.Definitions {
			found = found || slices.Contains(d.Kinds, want)
		}
		if !found {
			t.Errorf("%s is not described: run make generate", k.GVK)
		}
	}
	for _, part := range strings.Split(string(data), `"$ref":"#/`)[1:] {
		section, name, _ := strings.Cut(part[:strings.IndexByte(part, '"')], "/")
		if _, known := doc.Definitions[name]; section == "definitions" && !known || section == "parameters" && doc.Parameters[name] == nil {
			t.Errorf("%s %s is missing", section, name)
		}
	}

	answer, data = b.do(call{path: "/openapi/v2", header: accept("application/com.github.proto-openapi.spec.v2@v1.0+protobuf")})
	var message openapiv2.Document
	if err := protobuf.Unmarshal(data, &message); err != nil {
		t.Fatal(err)
	}
	if got := answer.Header.Get("Content-Type"); got != "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" {
		t.Errorf("%q", got)
	}
	if got := len(message.Definitions.AdditionalProperties); got != len(doc.Definitions) {
		t.Errorf("%d definitions in one form, %d in the other", got, len(doc.Definitions))
	}
	again, _ := b.do(call{path: "/openapi/v2", header: map[string]string{
		"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", "If-None-Match": answer.Header.Get("Etag"),
	}})
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("%d", again.StatusCode)
	}
	if refused, data := b.do(call{path: "/openapi/v2", header: accept("text/html")}); refused.StatusCode != http.StatusNotAcceptable {
		t.Errorf("%d %s", refused.StatusCode, data)
	}
}

// TestOpenAPIv2DescribesDefinedKinds: the JSON form has them as long as they are served, in what old clients understand.
func TestOpenAPIv2DescribesDefinedKinds(t *testing.T) {
	b := newBed(t)
	before, _ := b.do(call{path: "/openapi/v2"})
	b.define(widgetDefinition)
	answer, data := b.do(call{path: "/openapi/v2", header: map[string]string{"If-None-Match": before.Header.Get("Etag")}})
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%d: the document has not changed", answer.StatusCode)
	}
	var doc struct {
		Definitions map[string]object
		Paths       map[string]map[string]any
	}
	decode(t, data, &doc)
	spec := doc.Definitions["com.example.v1.Widget"]["properties"].(object)["spec"].(object)
	if spec["description"] != "What is wanted of a widget." {
		t.Errorf("the description is %q", spec["description"])
	}
	properties := spec["properties"].(object)
	want := object{
		"color": object{"type": "string", "enum": []any{"red", "green"}},
		"note":  object{}, // anything, as null is allowed too
		"free":  object{"x-kubernetes-preserve-unknown-fields": true},
		"size":  object{"type": "integer", "minimum": 1.0, "default": 3.0},
	}
	for name := range properties {
		if want[name] == nil {
			delete(properties, name)
		}
	}
	if diff := cmp.Diff(want, properties); diff != "" {
		t.Error(diff)
	}
	if doc.Definitions["com.example.v1beta1.WidgetList"] == nil || doc.Definitions["io.k8s.api.core.v1.Pod"] == nil {
		t.Error("definitions are missing")
	}
	if doc.Paths[strings.ReplaceAll(widgets, "default", "{namespace}")+"/{name}"]["patch"] == nil || doc.Paths["/api/v1/nodes"] == nil {
		t.Error("paths are missing")
	}
	for _, part := range strings.Split(string(data), `"$ref":"#/definitions/`)[1:] {
		if name := part[:strings.IndexByte(part, '"')]; doc.Definitions[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	again, _ := b.do(call{path: "/openapi/v2", header: map[string]string{"If-None-Match": answer.Header.Get("Etag")}})
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("the same again: %d", again.StatusCode)
	}
}
