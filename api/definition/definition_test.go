package definition_test

import (
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/definition"
)

const good = `
metadata: {name: crontabs.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {a: {type: string}}}}}}
`

func parsed(t *testing.T, manifest string) *apiextensions.CustomResourceDefinition {
	t.Helper()
	var d apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict([]byte(manifest), &d); err != nil {
		t.Fatal(err)
	}
	kind := api.KindFor(&d)
	kind.Default(&d)
	kind.PrepareCreate(&d)
	d.UID = "u"
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&d, &internal, nil); err != nil {
		t.Fatal(err)
	}
	return &internal
}

func TestValidate(t *testing.T) {
	if errs := definition.Validate(parsed(t, good)); len(errs) > 0 {
		t.Fatal(errs)
	}
	const a = "a: {type: string}"
	for _, c := range []struct{ from, to, want string }{
		{"crontabs.example.com", "crontab.example.com", `metadata.name: Invalid value: "crontab.example.com": must be spec.names.plural+"."+spec.group`},
		{"group: example.com", "group: example", `spec.group: Invalid value: "example": should be a domain with at least one dot`},
		{"scope: Namespaced", "scope: Galaxy", `spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"`},
		{"kind: CronTab", "kind: Cron_Tab", `spec.names.kind: Invalid value: "Cron_Tab": may have mixed case, but should otherwise match: `},
		{"kind: CronTab", "kind: CronTab, listKind: CronTab", `spec.names.listKind: Invalid value: "CronTab": kind and listKind may not be the same`},
		{"storage: true", "storage: false", "must have exactly one version marked as storage version"},
		{
			"schema: {openAPIV3Schema", "subresources: {scale: {specReplicasPath: .x, statusReplicasPath: .status.n}}\n    schema: {openAPIV3Schema",
			`spec.subresources.scale.specReplicasPath: Invalid value: ".x": should be a json path under .spec`,
		},
		{
			"schema: {openAPIV3Schema", "additionalPrinterColumns: [{name: A, type: text, jsonPath: .a}]\n    schema: {openAPIV3Schema",
			`spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string`,
		},
		{
			"schema: {openAPIV3Schema", "deprecationWarning: old\n    schema: {openAPIV3Schema",
			`spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions`,
		},
		{a, "a: {}", "spec.validation.openAPIV3Schema.properties[spec].properties[a].type: Required value: must not be empty for specified object fields"},
		{a, "a: {type: text}", `spec.validation.openAPIV3Schema.properties[spec].properties[a].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string"`},
		{a, "a: {type: array}", "spec.validation.openAPIV3Schema.properties[spec].properties[a].items: Required value: must be specified"},
		{a, "a: {type: integer, default: x}", `spec.validation.openAPIV3Schema.properties[spec].properties[a].default: Invalid value: "string":  in body must be of type integer: "string"`},
		{a, "a: {type: object, default: {b: 1}}", "must not have unknown fields"},
		{a, "a: {type: string, uniqueItems: true}", "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"},
		{a, "a: {type: object, properties: {b: {type: string}}, additionalProperties: {type: string}}", "additionalProperties and properties are mutual exclusive"},
		{a, "a: {type: string, x-kubernetes-list-type: set}", "must be array if x-kubernetes-list-type is specified"},
		{
			a, "a: {type: array, items: {type: object, properties: {k: {type: string}}}, x-kubernetes-list-type: map}",
			"x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
		},
		{
			a, "a: {type: array, items: {type: object, properties: {k: {type: string}}}, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k]}",
			"items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
		},
		{a, "a: {type: string, nullable: true}", ""},
		{a, "a: {type: string, x-kubernetes-validations: [{rule: ' '}]}", "x-kubernetes-validations[0].rule: Required value: rule is not specified"},
		{
			"properties: {spec", "properties: {metadata: {type: object, properties: {name: {type: string, default: x}}}, spec",
			"default: Forbidden: must not be set in top-level metadata",
		},
		{"scope: Namespaced", "scope: Namespaced\n  preserveUnknownFields: true", "cannot set to true, set x-kubernetes-preserve-unknown-fields to true"},
		{"example.com", "widgets.k8s.io", `protected groups must have approval annotation "api-approved.kubernetes.io"`},
	} {
		errs := definition.Validate(parsed(t, strings.ReplaceAll(good, c.from, c.to)))
		switch {
		case c.want == "" && len(errs) > 0:
			t.Errorf("%s: %v", c.to, errs)
		case c.want != "" && (len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), c.want)):
			t.Errorf("%s: %v, want %s", c.to, errs, c.want)
		}
	}
}

func TestValidateUpdate(t *testing.T) {
	older := parsed(t, good)
	older.ResourceVersion = "1"
	older.Status.Conditions = []apiextensions.CustomResourceDefinitionCondition{{Type: apiextensions.Established, Status: apiextensions.ConditionTrue}}
	for from, want := range map[string]string{
		"scope: Namespaced": "spec.scope: Invalid value: \"Cluster\": field is immutable",
		"kind: CronTab":     "spec.names.kind: Invalid value: \"Cron\": field is immutable",
		"name: v1":          `status.storedVersions[0]: Invalid value: "v1": missing from spec.versions`,
	} {
		to := map[string]string{"scope: Namespaced": "scope: Cluster", "kind: CronTab": "kind: Cron", "name: v1": "name: v2"}[from]
		newer := parsed(t, strings.Replace(good, from, to, 1))
		newer.ResourceVersion, newer.Status = "1", *older.Status.DeepCopy()
		errs := definition.ValidateUpdate(newer, older)
		if len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), want) {
			t.Errorf("%s: %v", to, errs)
		}
	}
}
