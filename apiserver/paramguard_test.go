package apiserver_test

import (
	"net/http"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// Who may write policies, but not read Secrets, may have no policy read them for him.
func TestParametersOfPoliciesAreGuarded(t *testing.T) {
	b := newBed(t)
	write := rbacv1.PolicyRule{APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}}
	b.allow("ann", write)
	b.allow("bob", write, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}})
	do := func(as, resource, manifest string) (int, []byte) {
		t.Helper()
		data, err := yaml.YAMLToJSON([]byte("{apiVersion: admissionregistration.k8s.io/v1, " + manifest + "}"))
		if err != nil {
			t.Fatal(err)
		}
		answer, body := b.do(call{method: http.MethodPost, path: "/apis/admissionregistration.k8s.io/v1/" + resource, body: string(data), as: as + "|dev"})
		return answer.StatusCode, body
	}
	const policies, bindings = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
	policy := func(name, params string) string {
		return "kind: ValidatingAdmissionPolicy, metadata: {name: " + name + "}, spec: {" + params + `matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1],
			resources: [configmaps], operations: [CREATE]}]}, validations: [{expression: "true"}]}`
	}
	binding := func(name, ref string) string {
		return "kind: ValidatingAdmissionPolicyBinding, metadata: {name: " + name + "}, spec: {policyName: p, validationActions: [Deny], paramRef: {" + ref + ", parameterNotFoundAction: Allow}}"
	}
	const secrets = "paramKind: {apiVersion: v1, kind: Secret}, "
	code, data := do("ann", policies, policy("p", secrets))
	mustContain(t, data, `spec.paramKind: Forbidden: user ann must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)`)
	if code != http.StatusUnprocessableEntity {
		t.Error(code)
	}
	for _, c := range []struct {
		as, resource, manifest string
		code                   int
	}{
		{"ann", policies, policy("none", ""), 201},
		{"bob", policies, policy("p", secrets), 201},
		{"ann", bindings, binding("a", "name: s, namespace: default"), 422},
		{"bob", bindings, binding("b", "name: s, namespace: default"), 201},
		{"bob", bindings, binding("c", "selector: {}"), 422}, // he may not list
	} {
		if code, data := do(c.as, c.resource, c.manifest); code != c.code {
			t.Errorf("%s: %s: %d %s", c.as, c.manifest, code, data)
		}
	}
	// What is not about parameters may be changed by whoever may write it.
	change := patchOf("/apis/admissionregistration.k8s.io/v1/"+policies+"/p", []byte(`{"spec":{"failurePolicy":"Ignore"}}`))
	change.as = "ann|dev"
	b.mustDo(change, http.StatusOK)
}
