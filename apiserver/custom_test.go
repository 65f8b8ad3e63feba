package apiserver_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/definition"
	"github.com/shoal-edge/shoal/store"
)

const widgetDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status', priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            description: What is wanted of a widget.
            required: [color]
            properties:
              color: {type: string, enum: [red, green]}
              size: {type: integer, minimum: 1, default: 3}
              replicas: {type: integer}
              port: {x-kubernetes-int-or-string: true}
              note: {type: string, nullable: true}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, count: {type: integer}}}
              pod: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            properties:
              replicas: {type: integer}
              selector: {type: string}
              conditions: {type: array, items: {type: object, properties: {type: {type: string}, status: {type: string}}}}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              color: {type: string}
              size: {type: integer}
              shade: {type: string, default: dark}
`

const widgets = "/apis/example.com/v1/namespaces/default/widgets"

// define creates a definition and accepts its names, as the controller does.
func (b *bed) define(manifest string) *apiextensionsv1.CustomResourceDefinition {
	b.t.Helper()
	var d apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict([]byte(manifest), &d); err != nil {
		b.t.Fatal(err)
	}
	made := b.create(&d)
	made, err := b.client.Modify(b.t.Context(), store.KeyOf(b.durable, made), "status", func(o api.Object) error {
		d := o.(*apiextensionsv1.CustomResourceDefinition)
		d.Status.AcceptedNames = d.Spec.Names
		definition.SetCondition(d, apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue,
		}, epoch)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return made.(*apiextensionsv1.CustomResourceDefinition)
}

func widget(name, spec string) string {
	return `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"` + name + `","labels":{"name":"` + name + `"}},"spec":` + spec + `}`
}

type object = map[string]any

func (b *bed) mustDo(c call, code int) object {
	b.t.Helper()
	answer, data := b.do(c)
	if answer.StatusCode != code {
		b.t.Fatalf("%s %s: %d %s", c.method, c.path, answer.StatusCode, data)
	}
	var o object
	if err := json.Unmarshal(data, &o); err != nil {
		b.t.Fatalf("%v: %s", err, data)
	}
	return o
}

func TestCustomObjectsAreServed(t *testing.T) {
	b := newBed(t)
	b.define(widgetDefinition)
	made := b.mustDo(call{method: "POST", path: widgets, body: widget("a", `{"color":"red","junk":1,"port":"http","free":{"x":{"y":1}},"note":null}`)}, http.StatusCreated)
	want := object{"color": "red", "size": 3.0, "port": "http", "free": object{"x": object{"y": 1.0}}, "note": nil}
	if diff := cmp.Diff(want, made["spec"]); diff != "" {
		t.Errorf("pruned and defaulted: %s", diff)
	}
	got := b.mustDo(call{path: widgets + "/a"}, http.StatusOK)
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("read: %s", diff)
	}
	list := b.mustDo(call{path: "/apis/example.com/v1/widgets"}, http.StatusOK)
	if list["kind"] != "WidgetList" || len(list["items"].([]any)) != 1 {
		t.Errorf("listed: %v", list)
	}
	if diff := cmp.Diff(made, list["items"].([]any)[0]); diff != "" {
		t.Errorf("listed: %s", diff)
	}
	older := b.mustDo(call{path: "/apis/example.com/v1beta1/namespaces/default/widgets/a"}, http.StatusOK)
	if diff := cmp.Diff(object{"color": "red", "size": 3.0, "shade": "dark"}, older["spec"]); diff != "" || older["apiVersion"] != "example.com/v1beta1" {
		t.Errorf("as the other version sees it: %s", diff)
	}
	b.mustDo(call{method: "DELETE", path: widgets + "/a"}, http.StatusOK)
	b.mustDo(call{path: widgets + "/a"}, http.StatusNotFound)
	b.mustDo(call{path: "/apis/example.com/v2/namespaces/default/widgets/a"}, http.StatusNotFound)
}

func TestCustomObjectsAreChecked(t *testing.T) {
	b := newBed(t)
	b.define(widgetDefinition)
	b.mustDo(call{method: "POST", path: widgets, body: widget("old", `{"color":"red","tags":["a"]}`)}, http.StatusCreated)
	for spec, want := range map[string]string{
		`{"color":"blue"}`:                                    `spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\"`,
		`{"size":1}`:                                          `spec.color: Required value`,
		`{"color":"red","size":0}`:                            `spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1`,
		`{"color":"red","size":"big"}`:                        `spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"`,
		`{"color":"red","port":true}`:                         `spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"`,
		`{"color":"red","tags":["a","a"]}`:                    `spec.tags[1]: Duplicate value: \"a\"`,
		`{"color":"red","parts":[{"name":"x"},{"name":"x"}]}`: `spec.parts[1]: Duplicate value: {\"name\":\"x\"}`,
		`{"color":"red","parts":[{"count":1}]}`:               `spec.parts[0].name: Required value`,
		`{"color":"red","pod":{"kind":"Pod"}}`:                `spec.pod.apiVersion: Required value`,
		`{"color":"red","pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"-":"x"}}}}`: `spec.pod.metadata.labels: Invalid value: \"-\"`,
		`{"color":"red","replicas":-1}`: `.spec.replicas: Invalid value: -1: should be a non-negative integer`,
	} {
		answer, data := b.do(call{method: "POST", path: widgets, body: widget("bad", spec)})
		if answer.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", spec, answer.StatusCode, data)
		}
		mustContain(t, data, `Widget.example.com \"bad\" is invalid`)
		mustContain(t, data, want)
	}
	answer, data := b.do(call{method: "POST", path: widgets + "?fieldValidation=Strict", body: widget("bad", `{"color":"red","a":1,"parts":[{"name":"x","b":1}]}`)})
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("strict: %d %s", answer.StatusCode, data)
	}
	mustContain(t, data, `strict decoding error: unknown field \"spec.a\", unknown field \"spec.parts[0].b\"`)
	answer, data = b.do(call{method: "POST", path: widgets, body: widget("warned", `{"color":"red","color":"red","a":1,"pod":{"apiVersion":"v1","kind":"Pod","metadata":{"junk":1}}}`)})
	if answer.StatusCode != http.StatusCreated {
		t.Errorf("warned: %d %s", answer.StatusCode, data)
	}
	got := answer.Header.Values("Warning")
	if diff := cmp.Diff([]string{`299 - "duplicate field \"spec.color\""`, `299 - "unknown field \"spec.a\""`, `299 - "unknown field \"spec.pod.metadata.junk\""`}, got); diff != "" {
		t.Errorf("warnings: %s", diff)
	}
	for _, bad := range []call{
		{method: "POST", path: widgets, body: `{"apiVersion":"example.com/v2","kind":"Widget","metadata":{"name":"x"}}`},
		{method: "POST", path: widgets, body: `{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"x"}}`},
		{method: "POST", path: widgets, body: `{"metadata":{"name":"x"}}`},
		{method: "POST", path: widgets, body: `[]`},
		{method: "POST", path: widgets, body: `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":1}}`},
	} {
		if answer, data := b.do(bad); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", bad.body, answer.StatusCode, data)
		}
	}
	if answer, _ := b.do(call{method: "POST", path: widgets, body: "k8s\x00", header: map[string]string{"Content-Type": "application/vnd.kubernetes.protobuf"}}); answer.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("Protobuf: %d", answer.StatusCode)
	}
}

func TestCustomSubresources(t *testing.T) {
	b := newBed(t)
	b.define(widgetDefinition)
	patch := func(path, kind, body string) object {
		t.Helper()
		return b.mustDo(call{method: "PATCH", path: path, body: body, header: map[string]string{"Content-Type": "application/" + kind}}, http.StatusOK)
	}
	meta := func(o object, name string) any { return o["metadata"].(object)[name] }
	made := b.mustDo(call{method: "POST", path: widgets, body: `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},
		"spec":{"color":"red","replicas":2},"status":{"replicas":9}}`}, http.StatusCreated)
	if made["status"] != nil || meta(made, "generation") != 1.0 {
		t.Errorf("created: %v", made)
	}
	o := patch(widgets+"/a/status", "merge-patch+json", `{"spec":{"color":"green"},"metadata":{"labels":{"x":"y"}},"status":{"replicas":1,"selector":"app=a"}}`)
	if o["spec"].(object)["color"] != "red" || meta(o, "labels") != nil || meta(o, "generation") != 1.0 || o["status"].(object)["replicas"] != 1.0 {
		t.Errorf("a write of the status: %v", o)
	}
	o = patch(widgets+"/a", "merge-patch+json", `{"spec":{"color":"green"},"status":{"replicas":7}}`)
	if o["status"].(object)["replicas"] != 1.0 || meta(o, "generation") != 2.0 {
		t.Errorf("a write of the body: %v", o)
	}
	o = patch(widgets+"/a", "json-patch+json", `[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]`)
	if meta(o, "generation") != 2.0 {
		t.Errorf("a write of the metadata: %v", o)
	}
	scale := b.mustDo(call{path: widgets + "/a/scale"}, http.StatusOK)
	if diff := cmp.Diff(object{"replicas": 1.0, "selector": "app=a"}, scale["status"]); diff != "" || scale["spec"].(object)["replicas"] != 2.0 {
		t.Errorf("scale: %v", scale)
	}
	patch(widgets+"/a/scale", "merge-patch+json", `{"spec":{"replicas":5}}`)
	o = b.mustDo(call{path: widgets + "/a"}, http.StatusOK)
	if o["spec"].(object)["replicas"] != 5.0 || meta(o, "generation") != 3.0 {
		t.Errorf("scaled: %v", o)
	}
	b.mustDo(call{path: "/apis/example.com/v1beta1/namespaces/default/widgets/a/status"}, http.StatusNotFound)
	b.mustDo(call{method: "PATCH", path: widgets + "/a", body: `{}`, header: map[string]string{"Content-Type": "application/strategic-merge-patch+json"}}, http.StatusUnsupportedMediaType)
	b.mustDo(call{method: "DELETE", path: widgets + "/a", body: `{"apiVersion":"example.com/v1","kind":"DeleteOptions","propagationPolicy":"Background"}`}, http.StatusOK)
}

func TestCustomObjectsAreApplied(t *testing.T) {
	b := newBed(t)
	b.define(widgetDefinition)
	apply := func(manager, spec string, code int) object {
		t.Helper()
		return b.mustDo(call{
			method: "PATCH", path: widgets + "/a?fieldManager=" + manager, header: map[string]string{"Content-Type": "application/apply-patch+yaml"},
			body: "{apiVersion: example.com/v1, kind: Widget, metadata: {name: a}, spec: " + spec + "}",
		}, code)
	}
	apply("one", `{color: red, replicas: 2, parts: [{name: x, count: 1}]}`, http.StatusCreated)
	o := apply("two", `{color: red, parts: [{name: z, count: 2}], tags: [t], free: {a: 1}}`, http.StatusOK)
	want := object{
		"color": "red", "size": 3.0, "replicas": 2.0, "tags": []any{"t"}, "free": object{"a": 1.0},
		"parts": []any{object{"name": "x", "count": 1.0}, object{"name": "z", "count": 2.0}},
	}
	if diff := cmp.Diff(want, o["spec"]); diff != "" {
		t.Errorf("merged: %s", diff)
	}
	apply("two", `{color: green}`, http.StatusConflict)
	o = apply("one", `{color: red}`, http.StatusOK)
	delete(want, "replicas")
	want["parts"] = []any{object{"name": "z", "count": 2.0}}
	if diff := cmp.Diff(want, o["spec"]); diff != "" {
		t.Errorf("what one applies no more: %s", diff)
	}
}

func TestCustomObjectsAreListedAndWatched(t *testing.T) {
	b := newBed(t)
	b.define(widgetDefinition)
	for i, color := range []string{"red", "green", "red"} {
		b.mustDo(call{method: "POST", path: widgets, body: widget(string(rune('a'+i)), `{"color":"`+color+`"}`)}, http.StatusCreated)
	}
	names := func(o object) (found []string) {
		for _, item := range o["items"].([]any) {
			found = append(found, item.(object)["metadata"].(object)["name"].(string))
		}
		return found
	}
	for query, want := range map[string][]string{
		"labelSelector=name%3Db": {"b"}, "fieldSelector=metadata.name%3Dc": {"c"}, "fieldSelector=spec.color%3Dred": {"a", "c"},
		"labelSelector=name+in+(a,b)&fieldSelector=spec.color%3Dred": {"a"},
	} {
		if diff := cmp.Diff(want, names(b.mustDo(call{path: widgets + "?" + query}, http.StatusOK))); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	b.mustDo(call{path: widgets + "?fieldSelector=spec.size%3D3"}, http.StatusBadRequest)
	page := b.mustDo(call{path: widgets + "?limit=2"}, http.StatusOK)
	rest := b.mustDo(call{path: widgets + "?limit=2&continue=" + page["metadata"].(object)["continue"].(string)}, http.StatusOK)
	if got := append(names(page), names(rest)...); !cmp.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("pages: %v", got)
	}
	table := b.mustDo(call{path: widgets, header: accept("application/json;as=Table;v=v1;g=meta.k8s.io")}, http.StatusOK)
	var columns []any
	for _, c := range table["columnDefinitions"].([]any) {
		columns = append(columns, c.(object)["name"])
	}
	if diff := cmp.Diff([]any{"Name", "Color", "Ready", "Age"}, columns); diff != "" {
		t.Errorf("columns: %s", diff)
	}
	if diff := cmp.Diff([]any{"b", "green", nil, "5m"}, table["rows"].([]any)[1].(object)["cells"]); diff != "" {
		t.Errorf("cells: %s", diff)
	}
	answer, _ := b.do(call{path: widgets, header: accept("application/vnd.kubernetes.protobuf,application/json")})
	if got := answer.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("of Protobuf and JSON it speaks %s", got)
	}
	if answer, _ := b.do(call{path: widgets, header: accept("application/vnd.kubernetes.protobuf")}); answer.StatusCode != http.StatusNotAcceptable {
		t.Errorf("Protobuf alone: %d", answer.StatusCode)
	}
	answer, data := b.do(call{path: widgets, header: accept("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")})
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(string(data), "k8s\x00") {
		t.Errorf("metadata as Protobuf: %d", answer.StatusCode)
	}
	watch := json.NewDecoder(b.open(call{path: widgets + "?watch=true&fieldSelector=spec.color%3Dred&resourceVersion=" +
		page["metadata"].(object)["resourceVersion"].(string)}).Body)
	for name, spec := range map[string]string{"a": `{"color":"green"}`} {
		b.mustDo(call{method: "PATCH", path: widgets + "/" + name, body: `{"spec":` + spec + `}`, header: map[string]string{"Content-Type": "application/merge-patch+json"}}, http.StatusOK)
	}
	var event object
	if err := watch.Decode(&event); err != nil || event["type"] != "DELETED" || event["object"].(object)["kind"] != "Widget" {
		t.Errorf("it does not match any more: %v, %v", event, err)
	}
}

func TestDefinitionsAreDiscovered(t *testing.T) {
	b := newBed(t)
	b.mustDo(call{path: "/apis/example.com"}, http.StatusNotFound)
	aggregated := call{path: "/apis", header: accept("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")}
	if _, data := b.do(aggregated); strings.Contains(string(data), "example.com") {
		t.Error("it is told of before it is defined")
	}
	b.define(widgetDefinition)
	group := b.mustDo(call{path: "/apis/example.com"}, http.StatusOK)
	if got := group["preferredVersion"].(object)["version"]; got != "v1" || len(group["versions"].([]any)) != 2 {
		t.Errorf("group: %v", group)
	}
	_, data := b.do(call{path: "/apis/example.com/v1"})
	mustContain(t, data, `"name":"widgets","singularName":"widget","namespaced":true,"kind":"Widget"`)
	mustContain(t, data, `"shortNames":["wd"],"categories":["all"]`)
	mustContain(t, data, `{"name":"widgets/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale"`)
	_, data = b.do(aggregated)
	mustContain(t, data, `"resource":"widgets","responseKind":{"group":"example.com","version":"v1beta1","kind":"Widget"}`)
	index := b.mustDo(call{path: "/openapi/v3"}, http.StatusOK)
	url := index["paths"].(object)["apis/example.com/v1"].(object)["serverRelativeURL"].(string)
	doc := b.mustDo(call{path: url}, http.StatusOK)
	schema := doc["components"].(object)["schemas"].(object)["com.example.v1.Widget"].(object)
	if schema["properties"].(object)["spec"].(object)["description"] != "What is wanted of a widget." {
		t.Errorf("described: %v", schema)
	}
	if doc["paths"].(object)["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"].(object)["patch"] == nil {
		t.Error("no patch is described")
	}
}

// A follower serves what a definition that it has just got defines, and what its objects are.
func TestNewDefinitionsAreKnownAtOnce(t *testing.T) {
	b := newBed(t)
	d := b.define(widgetDefinition)
	b.mustDo(call{method: "POST", path: widgets, body: widget("a", `{"color":"red"}`)}, http.StatusCreated)
	stricter := d.DeepCopy()
	size := stricter.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["size"]
	size.Default, size.Minimum = &apiextensionsv1.JSON{Raw: []byte("7")}, ptr.To(5.0)
	stricter.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["size"] = size
	stricter.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["level"] = apiextensionsv1.JSONSchemaProps{
		Type: "string", Default: &apiextensionsv1.JSON{Raw: []byte(`"low"`)},
	}
	if _, err := b.client.Update(t.Context(), stricter); err != nil {
		t.Fatal(err)
	}
	o := b.mustDo(call{path: widgets + "/a"}, http.StatusOK)
	if diff := cmp.Diff(object{"color": "red", "size": 3.0, "level": "low"}, o["spec"]); diff != "" {
		t.Errorf("read by the new schema: %s", diff)
	}
	patch := func(body string, code int) {
		t.Helper()
		b.mustDo(call{method: "PATCH", path: widgets + "/a", body: body, header: map[string]string{"Content-Type": "application/merge-patch+json"}}, code)
	}
	patch(`{"spec":{"color":"green"}}`, http.StatusOK) // what was wrong before may stay
	patch(`{"spec":{"size":4}}`, http.StatusUnprocessableEntity)
	patch(`{"spec":{"size":6}}`, http.StatusOK)
}

func TestDefinitionsThatEndLetNothingIn(t *testing.T) {
	b := newBed(t)
	d := b.define(widgetDefinition)
	b.mustDo(call{method: "POST", path: widgets, body: widget("a", `{"color":"red"}`)}, http.StatusCreated)
	ended := b.mustDo(call{method: "DELETE", path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + d.Name}, http.StatusOK)
	if diff := cmp.Diff([]any{"customresourcecleanup.apiextensions.k8s.io"}, ended["metadata"].(object)["finalizers"]); diff != "" {
		t.Errorf("finalizers: %s", diff)
	}
	refused := b.mustDo(call{method: "POST", path: widgets, body: widget("b", `{"color":"red"}`)}, http.StatusMethodNotAllowed)
	if refused["message"] != "create not allowed while custom resource definition is terminating" {
		t.Errorf("refused: %v", refused)
	}
	b.mustDo(call{path: widgets + "/a"}, http.StatusOK)
	b.mustDo(call{method: "DELETE", path: widgets + "/a"}, http.StatusOK)
}
