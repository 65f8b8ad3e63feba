package apiserver_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver"
)

// grant makes a role of its own with one rule and binds it to a user: in a namespace, or everywhere for the empty one.
func (b *bed) grant(name, namespace, user string, rule rbacv1.PolicyRule) {
	b.t.Helper()
	b.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}})
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	who := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	if namespace == "" {
		b.create(&rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: who})
		return
	}
	b.create(&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: who})
}

func verbsOn(verbs, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		Verbs: strings.Split(verbs, ","), APIGroups: []string{"", "authentication.k8s.io"}, Resources: strings.Split(resources, ","),
		ResourceNames: names,
	}
}

func TestAccessByRoles(t *testing.T) {
	b := newBed(t, withRoles)
	b.create(configMap("cm", nil))
	b.create(podOn("p", "n1"))
	b.grant("reader", "default", "jane", verbsOn("get,list,watch", "configmaps,namespaces"))
	b.grant("one", "default", "joe", verbsOn("get,list,watch", "configmaps", "cm"))
	b.grant("looker", "default", "jim", verbsOn("get", "pods/exec,pods/log"))
	for name, c := range map[string]struct {
		call
		code int
		want string
	}{
		"list":               {call{path: configMaps, as: "jane|crew"}, 200, `"cm"`},
		"another namespace":  {call{path: "/api/v1/namespaces/kube-system/configmaps", as: "jane|crew"}, 403, `configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"kube-system\"`},
		"all namespaces":     {call{path: "/api/v1/configmaps", as: "jane|crew"}, 403, `at the cluster scope`},
		"write":              {call{method: "DELETE", path: configMaps + "/cm", as: "jane|crew"}, 403, `configmaps \"cm\" is forbidden: User \"jane\" cannot delete`},
		"its namespace":      {call{path: "/api/v1/namespaces/default", as: "jane|crew"}, 200, `"default"`},
		"no other namespace": {call{path: "/api/v1/namespaces/x", as: "jane|crew"}, 403, `namespaces \"x\" is forbidden`},
		"unserved":           {call{path: "/apis/x.io/v1/boats", as: "jane|crew"}, 403, `boats.x.io is forbidden`},
		"one by name":        {call{path: configMaps + "/cm", as: "joe|crew"}, 200, `"cm"`},
		"one by selector":    {call{path: configMaps + "?fieldSelector=metadata.name%3Dcm", as: "joe|crew"}, 200, `"cm"`},
		"all, by one":        {call{path: configMaps, as: "joe|crew"}, 403, "forbidden"},
		"all but one":        {call{path: configMaps + "?fieldSelector=metadata.name!%3Dcm", as: "joe|crew"}, 403, "forbidden"},
		"exec needs create":  {call{path: "/api/v1/namespaces/default/pods/p/exec?command=ls", as: "jim|crew", header: map[string]string{"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}}, 403, `cannot create resource \"pods/exec\"`},
		"state":              {call{path: "/shoal/v1/state", as: "jane|crew"}, 403, "forbidden"},
		"snapshot":           {call{path: "/shoal/v1/snapshot", as: "jane|crew"}, 403, "forbidden"},
		"metrics":            {call{path: "/metrics", as: "prom|system:monitoring"}, 200, "apiserver_watches"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, data := b.do(c.call)
			if answer.StatusCode != c.code {
				t.Errorf("%d %s", answer.StatusCode, data)
			}
			mustContain(t, data, c.want)
		})
	}
}

func TestGuardsSeeTheUser(t *testing.T) {
	b := newBed(t, withRoles)
	b.grant("roles", "", "jane", rbacv1.PolicyRule{Verbs: []string{"create", "update"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}})
	role := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"strong"},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}`
	roles := "/apis/rbac.authorization.k8s.io/v1/clusterroles"
	answer, data := b.do(call{method: "POST", path: roles, body: role, as: "jane|crew"})
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d", answer.StatusCode)
	}
	mustContain(t, data, `is attempting to grant RBAC permissions not currently held`)
	for _, as := range []string{"", "boss|system:masters"} {
		if answer, data := b.do(call{method: "PUT", path: roles + "/strong", body: role, as: as}); answer.StatusCode >= 300 {
			t.Errorf("%d %s", answer.StatusCode, data)
		}
	}
}

func TestImpersonation(t *testing.T) {
	b := newBed(t, withRoles)
	b.grant("users", "", "helper", verbsOn("impersonate", "users", "jane"))
	b.grant("groups", "", "helper", verbsOn("impersonate", "groups", "crew"))
	b.grant("accounts", "default", "helper", verbsOn("impersonate", "serviceaccounts", "bot"))
	b.grant("extras", "", "helper", verbsOn("impersonate", "userextras/scopes", "view"))
	b.grant("uids", "", "helper", verbsOn("impersonate", "uids", "42"))
	for name, c := range map[string]struct {
		as     string
		header http.Header
		code   int
		told   string
		want   authenticationv1.UserInfo
	}{
		"oneself": {as: "helper|team", code: 201, want: authenticationv1.UserInfo{Username: "helper", Groups: []string{"team", "system:authenticated"}}},
		"a user": {
			as: "helper|team", header: http.Header{"Impersonate-User": {"jane"}}, code: 201,
			want: authenticationv1.UserInfo{Username: "jane", Groups: []string{"system:authenticated"}},
		},
		"all of a user": {
			as: "helper|team", code: 201,
			header: http.Header{"Impersonate-User": {"jane"}, "Impersonate-Group": {"crew"}, "Impersonate-Uid": {"42"}, "Impersonate-Extra-Scopes": {"view"}},
			want: authenticationv1.UserInfo{
				Username: "jane", UID: "42", Groups: []string{"crew", "system:authenticated"},
				Extra: map[string]authenticationv1.ExtraValue{"scopes": {"view"}},
			},
		},
		"an account": {
			as: "helper|team", header: http.Header{"Impersonate-User": {"system:serviceaccount:default:bot"}}, code: 201,
			want: authenticationv1.UserInfo{
				Username: "system:serviceaccount:default:bot",
				Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"},
			},
		},
		"by an administrator": {
			header: http.Header{"Impersonate-User": {"anybody"}, "Impersonate-Group": {"g", "system:authenticated"}}, code: 201,
			want: authenticationv1.UserInfo{Username: "anybody", Groups: []string{"g", "system:authenticated"}},
		},
		"another user":    {as: "helper|team", header: http.Header{"Impersonate-User": {"root"}}, code: 403, told: `users "root" is forbidden: User "helper" cannot impersonate resource "users" in API group "" at the cluster scope`},
		"another group":   {as: "helper|team", header: http.Header{"Impersonate-User": {"jane"}, "Impersonate-Group": {"crew", "system:masters"}}, code: 403, told: `groups "system:masters" is forbidden: User "helper" cannot impersonate`},
		"another account": {as: "helper|team", header: http.Header{"Impersonate-User": {"system:serviceaccount:kube-system:bot"}}, code: 403, told: `serviceaccounts "bot" is forbidden`},
		"another extra":   {as: "helper|team", header: http.Header{"Impersonate-User": {"jane"}, "Impersonate-Extra-Scopes": {"edit"}}, code: 403, told: `userextras.authentication.k8s.io "edit" is forbidden: User "helper" cannot impersonate resource "userextras/scopes"`},
		"another UID":     {as: "helper|team", header: http.Header{"Impersonate-User": {"jane"}, "Impersonate-Uid": {"1"}}, code: 403, told: `uids.authentication.k8s.io "1" is forbidden`},
		"a group alone":   {header: http.Header{"Impersonate-Group": {"crew"}}, code: 400, told: "without impersonating a user"},
		"anonymous":       {header: http.Header{"Impersonate-User": {"system:anonymous"}}, code: 403, told: `User "system:anonymous" cannot create`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest(http.MethodPost, b.url+"/apis/authentication.k8s.io/v1/selfsubjectreviews",
				strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`))
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(r.Header, c.header)
			if c.as == "" {
				c.as = "admin|system:masters"
			}
			r.Header.Set(identityHeader, c.as)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			var raw json.RawMessage
			if err := json.NewDecoder(answer.Body).Decode(&raw); err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != c.code {
				t.Fatalf("%d %s", answer.StatusCode, raw)
			}
			if c.code != 201 {
				var status metav1.Status
				if json.Unmarshal(raw, &status) != nil || !strings.Contains(status.Message, c.told) {
					t.Errorf("got %s", raw)
				}
				return
			}
			var review authenticationv1.SelfSubjectReview
			if err := json.Unmarshal(raw, &review); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, review.Status.UserInfo); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAccessReviews(t *testing.T) {
	b := newBed(t, withRoles)
	b.grant("reader", "default", "jane", verbsOn("get,list", "configmaps"))
	b.grant("asker", "", "asker", rbacv1.PolicyRule{
		Verbs: []string{"create"}, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews", "localsubjectaccessreviews"},
	})
	type answer struct {
		Status authorizationv1.SubjectAccessReviewStatus `json:"status"`
		Told   string                                    `json:"message"`
	}
	post := func(as, resource, body string) (int, answer) {
		t.Helper()
		path := "/apis/authorization.k8s.io/v1/" + resource
		response, data := b.do(call{method: "POST", path: path, body: body, as: as})
		var got answer
		var status metav1.Status
		if json.Unmarshal(data, &status) == nil && status.Kind == "Status" {
			got.Told = status.Message
		} else if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		return response.StatusCode, got
	}
	const list = `"resourceAttributes":{"namespace":"default","verb":"list","resource":"configmaps"}`
	for name, c := range map[string]struct {
		as, resource, spec, meta string
		code                     int
		allowed                  bool
		told                     string
	}{
		"self":             {as: "jane|x", resource: "selfsubjectaccessreviews", spec: list, code: 201, allowed: true, told: `RBAC: allowed by RoleBinding "reader/default" of ClusterRole "reader" to User "jane"`},
		"self, not":        {as: "joe|x", resource: "selfsubjectaccessreviews", spec: list, code: 201},
		"self, path":       {as: "joe|x", resource: "selfsubjectaccessreviews", spec: `"nonResourceAttributes":{"verb":"get","path":"/version"}`, code: 201, allowed: true, told: "system:discovery"},
		"self, nothing":    {as: "joe|x", resource: "selfsubjectaccessreviews", code: 422, told: "exactly one of nonResourceAttributes or resourceAttributes must be specified"},
		"another":          {as: "asker|x", resource: "subjectaccessreviews", spec: `"user":"jane",` + list, code: 201, allowed: true, told: "RBAC: allowed"},
		"another by group": {as: "asker|x", resource: "subjectaccessreviews", spec: `"groups":["system:masters"],` + list, code: 201, allowed: true},
		"nobody":           {as: "asker|x", resource: "subjectaccessreviews", spec: list, code: 422, told: "at least one of user or group must be specified"},
		"may not ask":      {as: "jane|x", resource: "subjectaccessreviews", spec: `"user":"jane",` + list, code: 403, told: "cannot create resource"},
		"with a name":      {as: "asker|x", resource: "subjectaccessreviews", spec: `"user":"jane",` + list, meta: `"name":"a"`, code: 422, told: "must be empty"},
		"local":            {as: "asker|x", resource: "namespaces/default/localsubjectaccessreviews", spec: `"user":"jane",` + list, code: 201, allowed: true, told: "RBAC"},
		"local, elsewhere": {as: "asker|x", resource: "namespaces/x/localsubjectaccessreviews", spec: `"user":"jane",` + list, code: 422, told: "must match metadata.namespace"},
		"local, a path":    {as: "asker|x", resource: "namespaces/default/localsubjectaccessreviews", spec: `"user":"jane","nonResourceAttributes":{"verb":"get","path":"/"}`, code: 422, told: "disallowed on this kind of request"},
		"local, nowhere":   {resource: "localsubjectaccessreviews", spec: `"user":"jane",` + list, code: 404, told: "could not find"},
		"two selectors":    {resource: "selfsubjectaccessreviews", spec: `"resourceAttributes":{"fieldSelector":{"rawSelector":"a=b","requirements":[{"key":"a","operator":"In","values":["b"]}]}}`, code: 422, told: "may not specified at the same time as requirements"},
	} {
		t.Run(name, func(t *testing.T) {
			code, got := post(c.as, c.resource, `{"metadata":{`+c.meta+`},"spec":{`+c.spec+`}}`)
			if code != c.code || got.Status.Allowed != c.allowed || got.Status.Denied || !strings.Contains(got.Told+got.Status.Reason, c.told) {
				t.Errorf("%d %+v", code, got)
			}
		})
	}

	var rules authorizationv1.SelfSubjectRulesReview
	b.get(&rules, call{method: "POST", path: "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body: `{"spec":{"namespace":"default"}}`, as: "jane|x"})
	has := func(resource string) bool {
		return slices.ContainsFunc(rules.Status.ResourceRules, func(r authorizationv1.ResourceRule) bool { return slices.Contains(r.Resources, resource) })
	}
	if rules.Status.Incomplete || !has("configmaps") || !has("selfsubjectreviews") || len(rules.Status.NonResourceRules) == 0 {
		t.Errorf("%+v", rules.Status)
	}
	if answer, _ := b.do(call{method: "POST", path: "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body: `{}`, as: "jane|x"}); answer.StatusCode != 400 {
		t.Errorf("without a namespace: %d", answer.StatusCode)
	}
}

// headers keeps the headers of what a server passes on, and the answer to the question how far the log is.
type headers struct {
	seen     http.Header
	revision func() uint64
}

func (h *headers) RoundTrip(r *http.Request) (*http.Response, error) {
	h.seen = r.Header.Clone()
	answer := httptest.NewRecorder()
	fmt.Fprint(answer, h.revision())
	return answer.Result(), nil
}

func TestIdentityIsPassedOn(t *testing.T) {
	leader := &headers{revision: func() uint64 { return 0 }}
	b := newBed(t, withRoles, func(b *bed, cfg *apiserver.Config) { cfg.Forward = leader })
	b.consensus.leads.Store(false)
	b.consensus.leader.Store("leader:6443")
	b.do(call{method: "DELETE", path: configMaps + "/cm", header: map[string]string{
		"Impersonate-User": "jane", "Impersonate-Group": "system:masters", "Impersonate-Uid": "42", "Impersonate-Extra-Example.com%2fscopes": "view",
		"X-Remote-User": "forged", "X-Remote-Group": "forged", "X-Remote-Extra-Forged": "forged", "Authorization": "Bearer secret",
	}})
	for name := range leader.seen {
		if !strings.HasPrefix(name, "Impersonate-") && !strings.HasPrefix(name, "X-Remote-") && name != "Authorization" {
			delete(leader.seen, name)
		}
	}
	want := http.Header{
		"X-Remote-User": {"jane"}, "X-Remote-Uid": {"42"}, "X-Remote-Group": {"system:masters", "system:authenticated"},
		"X-Remote-Extra-Example.com%2fscopes": {"view"},
	}
	if diff := cmp.Diff(want, leader.seen); diff != "" {
		t.Fatal(diff)
	}

	// The leader understands just that, from a server and from nobody else.
	two := newBed(t, withRoles)
	body := `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`
	ask := call{method: "POST", path: "/apis/authentication.k8s.io/v1/selfsubjectreviews", body: body, header: map[string]string{}}
	for name := range want {
		ask.header[name] = want.Get(name)
	}
	var review authenticationv1.SelfSubjectReview
	ask.as = "system:shoal:server:b|system:shoal:servers"
	two.get(&review, ask)
	if u := review.Status.UserInfo; u.Username != "jane" || u.UID != "42" || len(u.Extra["example.com/scopes"]) != 1 {
		t.Errorf("%+v", u)
	}
	ask.as = "joe|x"
	review = authenticationv1.SelfSubjectReview{}
	two.get(&review, ask)
	if u := review.Status.UserInfo; u.Username != "joe" || u.UID != "" || len(u.Extra) > 0 {
		t.Errorf("%+v", u)
	}
}

// TestRefusalIsNotOld grants at the leader what a follower does not know yet.
func TestRefusalIsNotOld(t *testing.T) {
	var b *bed
	leader := &headers{}
	b = newBed(t, withRoles, func(_ *bed, cfg *apiserver.Config) { cfg.Forward = leader })
	b.consensus.leads.Store(false)
	b.consensus.leader.Store("leader:6443")
	leader.revision = func() uint64 { // the log arrives while the follower asks how far it is
		b.grant("reader", "default", "jane", verbsOn("list", "configmaps"))
		leader.revision = b.durable.Revision
		return b.durable.Revision()
	}
	if answer, data := b.do(call{path: configMaps + "?resourceVersion=0", as: "jane|x"}); answer.StatusCode != http.StatusOK {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	if answer, _ := b.do(call{path: configMaps + "?resourceVersion=0", as: "joe|x"}); answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d", answer.StatusCode)
	}
}
