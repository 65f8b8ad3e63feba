//go:build !cel

package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What nothing evaluates is refused where it would be taken for what it is not, and told of elsewhere.
func TestConditionsThatAreNotEvaluatedAreRefused(t *testing.T) {
	b := newBed(t)
	_, data := b.do(call{method: "POST", path: "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", body: `{
		"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfiguration","metadata":{"name":"x"},"webhooks":[{
		"name":"x.example.com","clientConfig":{"url":"https://x"},"sideEffects":"None","admissionReviewVersions":["v1"],
		"matchConditions":[{"name":"a","expression":"true"}]}]}`})
	mustContain(t, data, "webhooks[0].matchConditions: Forbidden: this server evaluates no CEL expressions")
}

func TestRulesThatAreNotEvaluatedAreTold(t *testing.T) {
	b := newBed(t)
	with := strings.Replace(widgetDefinition, "description: What is", "x-kubernetes-validations: [{rule: 'self.size < 9'}]\n            description: What is", 1)
	data, err := yaml.YAMLToJSON([]byte(with))
	if err != nil {
		t.Fatal(err)
	}
	answer, body := b.do(call{method: "POST", path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body: string(data)})
	if answer.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", answer.StatusCode, body)
	}
	if got := answer.Header.Get("Warning"); !strings.Contains(got, "this server does not evaluate x-kubernetes-validations") {
		t.Errorf("warned: %q", got)
	}
}
