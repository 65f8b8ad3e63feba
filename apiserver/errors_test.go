package apiserver_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver"
)

const (
	configMaps = "/api/v1/namespaces/default/configmaps"
	yamlType   = "application/yaml"
)

func TestErrors(t *testing.T) {
	b := newBed(t)
	b.create(configMap("cm", nil))
	b.create(podOn("p", "n1"))
	json1 := func(name, more string) string {
		return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"}` + more + `}`
	}
	put := map[string]string{"Content-Type": "application/json"}
	merge := map[string]string{"Content-Type": "application/merge-patch+json"}
	for name, c := range map[string]struct {
		call
		code   int
		reason metav1.StatusReason
		want   string
	}{
		"no certificate":     {call{path: configMaps, as: "|"}, 401, "Unauthorized", "Unauthorized"},
		"a stranger":         {call{path: configMaps, as: "joe|users"}, 403, "Forbidden", `configmaps is forbidden: User "joe" cannot list resource "configmaps" in API group "" in the namespace "default"`},
		"metrics":            {call{path: "/metrics", as: "joe|users"}, 403, "Forbidden", `User "joe" cannot get path "/metrics"`},
		"a false server":     {call{path: configMaps, as: "joe|users", header: map[string]string{"X-Remote-User": "root", "X-Remote-Group": "system:masters"}}, 403, "Forbidden", `User "joe"`},
		"impersonation":      {call{path: configMaps, as: "joe|users", header: map[string]string{"Impersonate-User": "root"}}, 403, "Forbidden", "cannot impersonate"},
		"unserved group":     {call{path: "/apis/batch/v2/jobs"}, 404, "NotFound", "the server could not find the requested resource"},
		"unserved kind":      {call{path: "/api/v1/componentstatuses"}, 404, "NotFound", "the server could not find"},
		"unserved path":      {call{path: "/nonsense"}, 404, "NotFound", "the server could not find"},
		"unserved sub":       {call{path: configMaps + "/cm/status"}, 404, "NotFound", "the server could not find"},
		"wrong scope":        {call{path: "/api/v1/configmaps/cm"}, 404, "NotFound", "the server could not find"},
		"read index":         {call{path: "/shoal/v1/readindex"}, 404, "NotFound", ""},
		"no such object":     {call{path: configMaps + "/nope"}, 404, "NotFound", `configmaps "nope" not found`},
		"method":             {call{method: "PUT", path: configMaps, body: "{}"}, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		"not acceptable":     {call{path: configMaps, header: map[string]string{"Accept": "text/csv"}}, 406, "NotAcceptable", "only the following media types are accepted: application/json"},
		"protobuf table":     {call{path: configMaps, header: map[string]string{"Accept": "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1"}}, 406, "NotAcceptable", "media types"},
		"exists":             {call{method: "POST", path: configMaps, body: json1("cm", "")}, 409, "AlreadyExists", `configmaps "cm" already exists`},
		"stale":              {call{method: "PUT", path: configMaps + "/cm", body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm","resourceVersion":"1"}}`}, 409, "Conflict", "the object has been modified; please apply your changes to the latest version and try again"},
		"stale patch":        {call{method: "PATCH", path: configMaps + "/cm", header: merge, body: `{"metadata":{"resourceVersion":"1"}}`}, 409, "Conflict", "the object has been modified"},
		"too large":          {call{method: "POST", path: configMaps, body: strings.Repeat(" ", 3<<20+1)}, 413, "RequestEntityTooLarge", "limit is 3145728"},
		"content type":       {call{method: "POST", path: configMaps, body: "x", header: map[string]string{"Content-Type": "text/csv"}}, 415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted media types include: application/json"},
		"patch type":         {call{method: "PATCH", path: configMaps + "/cm", body: "{}", header: put}, 415, "UnsupportedMediaType", "application/strategic-merge-patch+json"},
		"table of a review":  {call{method: "POST", path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body: `{}`, header: accept("application/json;as=Table;v=v1;g=meta.k8s.io")}, 406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml"},
		"update of no name":  {call{method: "PUT", path: configMaps + "/cm", body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}`}, 400, "BadRequest", "the name of the object (cm based on URL) was undeterminable: name must be provided"},
		"finalize options":   {call{method: "PUT", path: "/api/v1/namespaces/default/finalize?dryRun=Some", body: `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}}`}, 422, "Invalid", `dryRun: Unsupported value: ["Some"]`},
		"server-side apply":  {call{method: "PATCH", path: configMaps + "/cm", body: "{}", header: map[string]string{"Content-Type": applyType}}, 422, "Invalid", "fieldManager: Required value: is required for apply patch"},
		"bad name":           {call{method: "POST", path: configMaps, body: json1("Not_A_Name", "")}, 422, "Invalid", `ConfigMap "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name": a lowercase RFC 1123 subdomain`},
		"no name":            {call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"ConfigMap"}`}, 422, "Invalid", "name or generateName is required"},
		"unknown field":      {call{method: "POST", path: configMaps + "?fieldValidation=Strict", body: json1("a", `,"bogus":1`)}, 400, "BadRequest", `ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "bogus"`},
		"duplicate field":    {call{method: "POST", path: configMaps + "?fieldValidation=Strict", body: json1("a", `,"data":{},"data":{}`)}, 400, "BadRequest", `strict decoding error: duplicate field "data"`},
		"unknown in YAML":    {call{method: "POST", path: configMaps + "?fieldValidation=Strict", header: map[string]string{"Content-Type": yamlType}, body: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nbogus: 1\n"}, 400, "BadRequest", `unknown field "bogus"`},
		"wrong type":         {call{method: "POST", path: configMaps, body: json1("a", `,"data":{"a":1}`)}, 400, "BadRequest", `ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number`},
		"broken YAML":        {call{method: "POST", path: configMaps, header: map[string]string{"Content-Type": yamlType}, body: "a: b: c"}, 400, "BadRequest", "yaml: "},
		"no JSON":            {call{method: "POST", path: configMaps, body: "{"}, 400, "BadRequest", "the object provided is unrecognized (must be of type ConfigMap)"},
		"empty":              {call{method: "POST", path: configMaps}, 400, "BadRequest", "(<empty>)"},
		"another kind":       {call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}`}, 400, "BadRequest", `Secret in version "v1" cannot be handled as a ConfigMap`},
		"unknown kind":       {call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"Nope","metadata":{"name":"a"}}`}, 400, "BadRequest", `no kind "Nope" is registered`},
		"another namespace":  {call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"x"}}`}, 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"},
		"another name":       {call{method: "PUT", path: configMaps + "/cm", body: json1("other", "")}, 400, "BadRequest", "the name of the object (other) does not match the name on the URL (cm)"},
		"missing namespace":  {call{method: "POST", path: "/api/v1/namespaces/x/configmaps", body: json1("a", "")}, 404, "NotFound", `namespaces "x" not found`},
		"needed namespace":   {call{method: "DELETE", path: "/api/v1/namespaces/default"}, 403, "Forbidden", "this namespace may not be deleted"},
		"dry run of what":    {call{method: "POST", path: configMaps + "?dryRun=some", body: json1("a", "")}, 422, "Invalid", "dryRun"},
		"label selector":     {call{path: configMaps + "?labelSelector=a%3Db%3Dc"}, 400, "BadRequest", "unable to parse requirement"},
		"field selector":     {call{path: configMaps + "?fieldSelector=data%3Dx"}, 400, "BadRequest", "field label not supported: data"},
		"resourceVersion":    {call{path: configMaps + "?resourceVersion=x"}, 400, "BadRequest", "invalid resource version"},
		"continue":           {call{path: configMaps + "?continue=x"}, 400, "BadRequest", "continue key is not valid"},
		"match":              {call{path: configMaps + "?resourceVersionMatch=Exact"}, 422, "Invalid", "resourceVersionMatch is forbidden unless resourceVersion is provided"},
		"bad JSON patch":     {call{method: "PATCH", path: configMaps + "/cm", header: map[string]string{"Content-Type": "application/json-patch+json"}, body: `[{"op":"remove","path":"/nope"}]`}, 422, "Invalid", "the server rejected our request due to an error in our request"},
		"bad merge patch":    {call{method: "PATCH", path: configMaps + "/cm", header: merge, body: `{`}, 400, "BadRequest", "error decoding patch"},
		"strict merge patch": {call{method: "PATCH", path: configMaps + "/cm?fieldValidation=Strict", header: merge, body: `{"bogus":1}`}, 422, "Invalid", `strict decoding error: unknown field \"bogus\"`},
		"patch of nothing":   {call{method: "PATCH", path: configMaps + "/nope", header: merge, body: `{}`}, 404, "NotFound", `configmaps "nope" not found`},
		"delete of nothing":  {call{method: "DELETE", path: configMaps + "/nope"}, 404, "NotFound", `configmaps "nope" not found`},
		"delete another":     {call{method: "DELETE", path: configMaps + "/cm", body: `{"preconditions":{"uid":"x"}}`}, 409, "Conflict", "Precondition failed: UID in precondition: x"},
		"delete options":     {call{method: "DELETE", path: configMaps + "/cm", body: `{"propagationPolicy":"Sometimes"}`}, 422, "Invalid", "propagationPolicy"},
		"container":          {call{path: "/api/v1/namespaces/default/pods/p/log?container=x"}, 400, "BadRequest", "container x is not valid for pod p"},
		"plain exec":         {call{method: "POST", path: "/api/v1/namespaces/default/pods/p/exec?command=ls"}, 400, "BadRequest", "Upgrade request required"},
		"bound already":      {call{method: "POST", path: "/api/v1/namespaces/default/pods/p/binding", body: `{"target":{"name":"n2"}}`}, 409, "Conflict", `pod p is already assigned to node "n1"`},
		"negative scale":     {call{method: "PATCH", path: "/apis/apps/v1/namespaces/default/deployments/nope/scale", header: merge, body: `{"spec":{"replicas":-1}}`}, 404, "NotFound", `deployments.apps "nope" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			answer, data := b.do(c.call)
			var status metav1.Status
			if err := json.Unmarshal(data, &status); err != nil {
				t.Fatalf("%d %v: %s", answer.StatusCode, err, data)
			}
			if answer.StatusCode != c.code || int(status.Code) != c.code || status.Kind != "Status" || status.Status != "Failure" {
				t.Errorf("got %d: %s", answer.StatusCode, data)
			}
			if status.Reason != c.reason && c.reason != "" || !strings.Contains(string(data)+status.Message, c.want) {
				t.Errorf("got %s: %s", status.Reason, data)
			}
		})
	}
}

func TestUnknownFieldsWarn(t *testing.T) {
	b := newBed(t)
	var got map[string]any
	answer := b.get(&got, call{method: "POST", path: configMaps, body: `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","bogus":1},"data":{"x":"y"}}`})
	if w := answer.Header.Values("Warning"); len(w) != 1 || w[0] != `299 - "unknown field \"metadata.bogus\""` {
		t.Errorf("warnings %q", w)
	}
	answer = b.get(&got, call{method: "POST", path: configMaps + "?fieldValidation=Ignore", body: `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b"},"bogus":1}`})
	if w := answer.Header.Values("Warning"); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

func TestTooManyRequests(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	b := newBed(t, func(_ *bed, cfg *apiserver.Config) {
		cfg.MaxInFlight, cfg.QueueWait = 1, 50*time.Millisecond
		cfg.Ready = map[string]func() error{"slow": func() error { close(entered); <-leave; return nil }}
	})
	done := make(chan int)
	go func() {
		answer, err := http.DefaultClient.Do(func() *http.Request {
			r, _ := http.NewRequest(http.MethodGet, b.url+"/readyz", nil)
			r.Header.Set(identityHeader, "admin|system:masters")
			return r
		}())
		if err != nil {
			done <- 0
			return
		}
		answer.Body.Close()
		done <- answer.StatusCode
	}()
	<-entered
	answer, data := b.do(call{path: configMaps})
	if answer.StatusCode != http.StatusTooManyRequests || answer.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	// Who elects a leader, a device, and another server are not kept waiting by others.
	for path, as := range map[string]string{
		"/apis/coordination.k8s.io/v1/namespaces/default/leases": "",
		"/api/v1/pods?fieldSelector=spec.nodeName%3Dn1":          "system:node:n1|system:nodes",
		"/shoal/v1/readindex":                                    "system:shoal:server:b|system:shoal:servers",
	} {
		if answer, data := b.do(call{path: path, as: as}); answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, answer.StatusCode, data)
		}
	}
	close(leave)
	if code := <-done; code != http.StatusOK {
		t.Errorf("the first request: %d", code)
	}
	if answer, data := b.do(call{path: configMaps}); answer.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", answer.StatusCode, data)
	}
}
