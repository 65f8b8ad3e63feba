package audit

import (
	"strings"
	"testing"
)

const examplePolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted]
rules:
- level: None
  users: [system:kube-proxy]
- level: None
  nonResourceURLs: ["/openapi/*", "/version"]
- level: Metadata
  resources:
  - group: ""
    resources: [secrets, configmaps]
- level: Request
  verbs: [create]
  namespaces: [web]
  omitManagedFields: true
- level: RequestResponse
  userGroups: [dev]
  resources:
  - group: apps
    resources: ["*/scale", "deployments/*"]
    resourceNames: [web]
`

func TestPolicyDecides(t *testing.T) {
	p, err := ParsePolicy([]byte(examplePolicy))
	if err != nil {
		t.Fatal(err)
	}
	pod := &Object{Resource: "pods", Namespace: "web", Name: "p"}
	scale := func(name string) *Object {
		return &Object{Resource: "deployments", APIGroup: "apps", Subresource: "scale", Namespace: "x", Name: name}
	}
	for name, c := range map[string]struct {
		q    Request
		want Level
	}{
		"a user":              {Request{User: "system:kube-proxy", Verb: "list", Object: pod}, LevelNone},
		"a path":              {Request{User: "u", Verb: "get", Path: "/openapi/v2"}, LevelNone},
		"another path":        {Request{User: "u", Verb: "get", Path: "/versions"}, LevelNone}, // no rule matches
		"a resource":          {Request{User: "u", Verb: "create", Object: &Object{Resource: "secrets", Namespace: "web"}}, LevelMetadata},
		"a namespace":         {Request{User: "u", Verb: "create", Object: pod}, LevelRequest},
		"another verb":        {Request{User: "u", Verb: "list", Object: pod}, LevelNone},
		"a subresource":       {Request{User: "u", Groups: []string{"dev"}, Verb: "update", Object: scale("web")}, LevelRequestResponse},
		"another name":        {Request{User: "u", Groups: []string{"dev"}, Verb: "update", Object: scale("db")}, LevelNone},
		"without a group":     {Request{User: "u", Verb: "update", Object: scale("web")}, LevelNone},
		"no resource at all":  {Request{User: "u", Verb: "create", Path: "/api"}, LevelNone},
		"the resource itself": {Request{User: "u", Groups: []string{"dev"}, Object: &Object{Resource: "deployments", APIGroup: "apps", Name: "web"}}, LevelRequestResponse},
	} {
		if got := p.Decide(&c.q); got.Level != c.want {
			t.Errorf("%s: %s, want %s", name, got.Level, c.want)
		}
	}
	if d := p.Decide(&Request{User: "u", Verb: "create", Object: pod}); !d.OmitManagedFields || len(d.OmitStages) != 1 {
		t.Errorf("%+v", d)
	}
	if d := (*Policy)(nil).Decide(&Request{}); d.Level != LevelMetadata {
		t.Errorf("without a policy: %+v", d)
	}
}

func TestPolicyIsStrict(t *testing.T) {
	const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	for text, want := range map[string]string{
		"kind: Policy\nrules: [{level: None}]":                                       "should be audit.k8s.io/v1 Policy",
		head:                                                                         "there are none",
		head + "rules: [{levels: None}]":                                             `unknown field "levels"`,
		head + "rules: [{level: Everything}]":                                        `rules[0]: level: "Everything" is none`,
		head + "rules: [{level: None, level: Metadata}]":                             `already set in map`,
		head + "omitStages: [Never]\nrules: [{level: None}]":                         `"Never" is no stage`,
		head + "rules: [{level: None, nonResourceURLs: [api]}]":                      "must begin with a '/'",
		head + "rules: [{level: None, nonResourceURLs: [\"/a*b\"]}]":                 "must be the final character",
		head + "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]":      "cannot apply to both",
		head + "rules: [{level: None, resources: [{group: a, resourceNames: [b]}]}]": "requires at least one resource",
	} {
		if _, err := ParsePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
