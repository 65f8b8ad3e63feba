package apiserver_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
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
