//go:build cel

package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const registration = "/apis/admissionregistration.k8s.io/v1/"

// register writes a configuration of admission, given in YAML, and returns what was answered.
func (b *bed) register(resource, manifest string) (*http.Response, []byte) {
	b.t.Helper()
	data, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(call{method: "POST", path: registration + resource, body: string(data)})
}

// bind makes a policy and binds it.
func (b *bed) bind(policy, binding string) {
	b.t.Helper()
	const kind = "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy"
	for _, m := range [][2]string{{"validatingadmissionpolicies", kind + ", " + policy + "}"}, {"validatingadmissionpolicybindings", kind + "Binding, " + binding + "}"}} {
		if answer, data := b.register(m[0], m[1]); answer.StatusCode != http.StatusCreated || answer.Header.Get("Warning") != "" {
			b.t.Fatalf("%d %s %s", answer.StatusCode, answer.Header.Get("Warning"), data)
		}
	}
}

const ofConfigMaps = `matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1], resources: [configmaps], operations: [CREATE, UPDATE, DELETE]}]}`

func configMapWith(name, data string) call {
	return post(configMaps, "ConfigMap", `"metadata":{"name":"`+name+`"},"data":{`+data+`}`)
}

func TestPolicyDenies(t *testing.T) {
	b := newBed(t, confirming)
	b.bind(`metadata: {name: sizes}, spec: {`+ofConfigMaps+`, variables: [{name: size, expression: "int(object.data.size)"}],
		matchConditions: [{name: not-deleted, expression: "request.operation != 'DELETE'"}, {name: sized, expression: "has(object.data) && 'size' in object.data"}],
		validations: [{expression: "variables.size < 5", messageExpression: "'size is ' + string(variables.size)", reason: Forbidden}, {expression: "object.data.size != '0'"}]}`,
		`metadata: {name: everywhere}, spec: {policyName: sizes, validationActions: [Deny]}`)
	answer, data := b.do(configMapWith("a", `"size":"7"`))
	mustContain(t, data, `"message":"configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'sizes' with binding 'everywhere' denied request: size is 7"`)
	if answer.StatusCode != 403 {
		t.Errorf("%d", answer.StatusCode)
	}
	answer, data = b.do(configMapWith("a", `"size":"0"`))
	mustContain(t, data, "denied request: failed expression: object.data.size != '0'")
	if answer.StatusCode != 422 {
		t.Errorf("%d", answer.StatusCode)
	}
	// What cannot be evaluated is refused, too.
	_, data = b.do(configMapWith("a", `"size":"big"`))
	mustContain(t, data, "denied request: expression 'variables.size")
	// What it is not about passes.
	b.mustDo(configMapWith("a", `"size":"4"`), 201)
	b.mustDo(configMapWith("b", `"other":"9"`), 201)
	b.mustDo(patchOf(configMaps+"/a", []byte(`{"data":{"size":"5"}}`)), 403)
	b.mustDo(call{method: http.MethodDelete, path: configMaps + "/a"}, 200)
	// The controllers' writes are looked at, and taken away it says nothing any more.
	large := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}, Data: map[string]string{"size": "8"}}
	if _, err := b.client.Create(t.Context(), large); err == nil || !strings.Contains(err.Error(), "size is 8") {
		t.Error(err)
	}
	b.mustDo(call{method: http.MethodDelete, path: registration + "validatingadmissionpolicybindings/everywhere"}, 200)
	b.mustDo(configMapWith("a", `"size":"7"`), 201)
}

func TestPolicyTakesParameters(t *testing.T) {
	b := newBed(t)
	b.bind(`metadata: {name: names}, spec: {`+ofConfigMaps+`, paramKind: {apiVersion: v1, kind: ConfigMap},
		matchConditions: [{name: others, expression: "request.name != 'rules'"}],
		validations: [{expression: "object.metadata.name.startsWith(params.data.prefix)", message: wrong name}]}`,
		`metadata: {name: bound}, spec: {policyName: names, validationActions: [Deny], paramRef: {name: rules, parameterNotFoundAction: Deny},
			matchResources: {excludeResourceRules: [{apiGroups: ['*'], apiVersions: ['*'], resources: [configmaps], operations: ['*'], resourceNames: [free, rules]}]}}`)
	_, data := b.do(configMapWith("a", ``))
	mustContain(t, data, "with binding 'bound' denied request: failed to configure binding: no params found")
	b.mustDo(configMapWith("rules", `"prefix":"x-"`), 201)
	_, data = b.do(configMapWith("a", ``))
	mustContain(t, data, "denied request: wrong name")
	b.mustDo(configMapWith("x-a", ``), 201)
	b.mustDo(configMapWith("free", ``), 201)
}

func TestPolicyWarns(t *testing.T) {
	b := newBed(t)
	b.bind(`metadata: {name: old.example.com}, spec: {`+ofConfigMaps+`, validations: [{expression: "!has(object.data)", message: do not use data}]}`,
		`metadata: {name: gently}, spec: {policyName: old.example.com, validationActions: [Warn, Audit]}`)
	answer, data := b.do(configMapWith("a", `"a":"b"`))
	const want = "Validation failed for ValidatingAdmissionPolicy 'old.example.com' with binding 'gently': do not use data"
	if got := answer.Header.Get("Warning"); answer.StatusCode != 201 || strings.Count(got, want) != 1 {
		t.Errorf("%d %q %s", answer.StatusCode, got, data)
	}
}

func TestPolicyAsksWhatSomebodyMay(t *testing.T) {
	b := newBed(t)
	b.bind(`metadata: {name: owners}, spec: {`+ofConfigMaps+`, validations: [{message: who may not may not,
		expression: "authorizer.group('').resource('secrets').namespace(request.namespace).check('get').allowed() && namespaceObject.metadata.name == 'default'"}]}`,
		`metadata: {name: owners}, spec: {policyName: owners, validationActions: [Deny]}`)
	b.mustDo(configMapWith("a", ``), 201) // an administrator
	if _, err := b.client.Create(t.Context(), configMap("b", nil)); err == nil || !strings.Contains(err.Error(), "may not may not") {
		t.Error(err)
	}
}

func TestPolicyIsChecked(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct{ spec, want string }{
		{`validations: [{expression: "object.spec.replicas =="}]`, `spec.validations[0].expression: Invalid value: \"object.spec.replicas ==\": compilation failed: ERROR`},
		{`validations: [{expression: "'text'"}]`, `spec.validations[0].expression: Invalid value: \"'text'\": must evaluate to bool`},
		{`validations: [{expression: "params.x"}]`, `undeclared reference to 'params'`},
		{`validations: [{expression: "variables.none"}]`, `undefined field 'none'`},
		{`validations: [{expression: "true", reason: Gone}]`, `spec.validations[0].reason: Unsupported value: \"Gone\"`},
		{`variables: [{name: for, expression: "1"}], validations: [{expression: "true"}]`, `spec.variables[0].name: Invalid value: \"for\": must be a valid CEL identifier`},
		{`validations: [{expression: "true", messageExpression: "1"}]`, `messageExpression: Invalid value: \"1\": must evaluate to string`},
		{`auditAnnotations: [{key: a, valueExpression: "1"}]`, `spec.auditAnnotations[0].valueExpression: Invalid value`},
		{`validations: [{expression: "true"}], matchConditions: [{name: 'a b', expression: " "}]`, `spec.matchConditions[0].expression: Required value`},
	} {
		answer, data := b.register("validatingadmissionpolicies",
			"{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: p}, spec: {"+ofConfigMaps+", "+c.spec+"}}")
		if answer.StatusCode != 422 {
			t.Errorf("%s: %d", c.spec, answer.StatusCode)
		}
		mustContain(t, data, c.want)
	}
}

func TestWebhookHasConditions(t *testing.T) {
	b, r := newBed(t), newReviewer(t)
	r.answers["/no"] = deny(nil)
	condition := func(text string) func(*admissionregistrationv1.ValidatingWebhook) {
		return func(h *admissionregistrationv1.ValidatingWebhook) {
			h.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "a", Expression: text}}
		}
	}
	b.validating(r, "/no", on("", "v1", "configmaps", "*"), condition("object.metadata.name == 'refused'"))
	b.mustDo(configMapWith("a", ``), 201)
	_, data := b.do(configMapWith("refused", ``))
	mustContain(t, data, "no.example.com")
	if asked := r.heard(); len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
	// A condition that fails refuses, as the webhook could not be asked.
	b.validating(r, "/fails", on("", "v1", "secrets", "*"), condition("object.data.none == ''"))
	_, data = b.do(post("/api/v1/namespaces/default/secrets", "Secret", `"metadata":{"name":"a"}`))
	mustContain(t, data, `secrets \"a\" is forbidden: expression 'object.data.none == ''' resulted in error`)
	answer, data := b.register("mutatingwebhookconfigurations", `{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration,
		metadata: {name: x}, webhooks: [{name: x.example.com, clientConfig: {url: "https://x"}, sideEffects: None, admissionReviewVersions: [v1],
		matchConditions: [{name: a, expression: "..."}]}]}`)
	if mustContain(t, data, "webhooks[0].matchConditions[0].expression: Invalid value"); answer.StatusCode != 422 {
		t.Error(answer.StatusCode)
	}
}

func TestDefinitionHasRules(t *testing.T) {
	b := newBed(t)
	b.define(strings.Replace(widgetDefinition, "description: What is", `x-kubernetes-validations:
            - {rule: 'self.size < 9', message: it is too large}
            - {rule: "!has(oldSelf.note) || self.note == oldSelf.note", message: a note is for ever}
            description: What is`, 1))
	_, data := b.do(call{method: "POST", path: widgets, body: widget("a", `{"color":"red","size":9}`)})
	mustContain(t, data, `it is too large`)
	b.mustDo(call{method: "POST", path: widgets, body: widget("a", `{"color":"red","size":8,"note":"x"}`)}, 201)
	_, data = b.do(patchOf(widgets+"/a", []byte(`{"spec":{"note":"y"}}`)))
	mustContain(t, data, `a note is for ever`)
	// An object that is not as the schema wants it is not asked after the rules.
	_, data = b.do(call{method: "POST", path: widgets, body: widget("b", `{"size":9}`)})
	mustContain(t, data, "some validation rules were not checked because the object was invalid")
	if strings.Contains(string(data), "too large") {
		t.Errorf("%s", data)
	}
	wrong := strings.Replace(strings.ReplaceAll(widgetDefinition, "widget", "gadget"), "description: What is",
		"x-kubernetes-validations: [{rule: 'self.none < 9'}]\n            description: What is", 1)
	broken, err := yaml.YAMLToJSON([]byte(strings.Replace(wrong, "kind: Widget", "kind: Gadget", 1)))
	if err != nil {
		t.Fatal(err)
	}
	answer, data := b.do(call{method: "POST", path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body: string(broken)})
	if mustContain(t, data, "undefined field 'none'"); answer.StatusCode != 422 {
		t.Error(answer.StatusCode)
	}
}

// change makes a policy that changes config maps, and binds it.
func (b *bed) change(name, spec, binding string) {
	b.t.Helper()
	const kind = "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy"
	rules := strings.Replace(ofConfigMaps, ", DELETE", "", 1)
	for _, m := range [][2]string{
		{"mutatingadmissionpolicies", kind + ", metadata: {name: " + name + "}, spec: {" + rules + ", " + spec + "}}"},
		{"mutatingadmissionpolicybindings", kind + "Binding, metadata: {name: " + name + "}, spec: {policyName: " + name + binding + "}}"},
	} {
		if answer, data := b.register(m[0], m[1]); answer.StatusCode != http.StatusCreated || answer.Header.Get("Warning") != "" {
			b.t.Fatalf("%d %s %s", answer.StatusCode, answer.Header.Get("Warning"), data)
		}
	}
}

func TestPolicyChanges(t *testing.T) {
	b := newBed(t)
	b.mustDo(configMapWith("defaults", `"added":"by a parameter"`), 201)
	b.change("a-label", `reinvocationPolicy: Never, variables: [{name: letters, expression: "string(size(object.metadata.name))"}],
		matchConditions: [{name: new, expression: "request.operation == 'CREATE'"}], paramKind: {apiVersion: v1, kind: ConfigMap},
		mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{metadata: Object.metadata{labels: {"length": variables.letters}}, data: params.data}'}}]`,
		`, paramRef: {name: defaults, parameterNotFoundAction: Deny}`)
	b.change("b-patch", `reinvocationPolicy: Never, mutations: [{patchType: JSONPatch,
		jsonPatch: {expression: '[JSONPatch{op: "test", path: "/metadata/labels/length", value: "3"}, JSONPatch{op: "add", path: "/metadata/annotations", value: {"three": "letters"}}]'}}]`, "")
	b.change("c-again", `reinvocationPolicy: IfNeeded, mutations: [{patchType: ApplyConfiguration,
		applyConfiguration: {expression: 'Object{metadata: Object.metadata{labels: {"seen": string(size(object.metadata.labels) + 1)}}}'}}]`, "")
	var made corev1.ConfigMap
	b.get(&made, configMapWith("abc", `"own":"x"`))
	if made.Labels["length"] != "3" || made.Data["own"] != "x" || made.Data["added"] != "by a parameter" || made.Annotations["three"] != "letters" || made.Labels["seen"] != "2" {
		t.Errorf("%v %v %v", made.Labels, made.Annotations, made.Data)
	}
	// What it is not about stays as it is, and so does what a test of a patch refuses.
	var other corev1.ConfigMap
	b.get(&other, configMapWith("abcd", `"own":"x"`))
	if other.Labels["length"] != "4" || other.Annotations != nil {
		t.Errorf("%v %v", other.Labels, other.Annotations)
	}
	changed := b.mustDo(patchOf(configMaps+"/abc", []byte(`{"metadata":{"labels":{"length":"0"}}}`)), 200)
	if got := changed["metadata"].(object)["labels"].(object)["length"]; got != "0" {
		t.Error(got)
	}
}

func TestPolicyThatCannotChange(t *testing.T) {
	b := newBed(t)
	b.change("owners", `reinvocationPolicy: Never, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{metadata: Object.metadata{name: "other"}}'}}]`, "")
	answer, data := b.do(configMapWith("a", ``))
	mustContain(t, data, `"message":"policy 'owners' with binding 'owners' denied request: it wants to change the name of the object","reason":"Invalid"`)
	if answer.StatusCode != 403 {
		t.Error(answer.StatusCode)
	}
	b.mustDo(call{method: "DELETE", path: registration + "mutatingadmissionpolicybindings/owners"}, 200)
	b.change("lost", `failurePolicy: Ignore, reinvocationPolicy: Never, mutations: [{patchType: JSONPatch, jsonPatch: {expression: '[JSONPatch{op: "remove", path: "/data/none"}]'}}]`, "")
	b.mustDo(configMapWith("a", ``), 201)
	for spec, want := range map[string]string{
		`mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: '1'}}]`:                        `must evaluate to Object`,
		`mutations: [{patchType: JSONPatch, jsonPatch: {expression: 'Object{}'}}]`:                                   `must evaluate to list`,
		`mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{spec: Object.x{}}'}}]`: ``,
	} {
		answer, data := b.register("mutatingadmissionpolicies", "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy, metadata: {name: p}, spec: {"+
			strings.Replace(ofConfigMaps, ", DELETE", "", 1)+", reinvocationPolicy: Never, "+spec+"}}")
		if mustContain(t, data, want); answer.StatusCode != 422 && want != "" {
			t.Errorf("%s: %d", spec, answer.StatusCode)
		}
	}
}

// A part that names a list that can only be replaced as a whole would drop the rest of it.
func TestPolicyMayNotLoseLists(t *testing.T) {
	b := newBed(t)
	const pods = `matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1], resources: [pods], operations: [CREATE]}]}`
	for _, m := range [][2]string{
		{"mutatingadmissionpolicies", `{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy, metadata: {name: p}, spec: {` + pods + `, reinvocationPolicy: Never,
			mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{spec: Object.spec{containers: [Object.spec.containers{name: "c", args: ["x"]}]}}'}}]}}`},
		{"mutatingadmissionpolicybindings", `{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicyBinding, metadata: {name: p}, spec: {policyName: p}}`},
	} {
		if answer, data := b.register(m[0], m[1]); answer.StatusCode != 201 {
			t.Fatalf("%s", data)
		}
	}
	_, data := b.do(post("/api/v1/namespaces/default/pods", "Pod", `"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i","args":["y"]}]}`))
	mustContain(t, data, "may not mutate atomic arrays, maps or structs: .spec.containers[0].args")
}
