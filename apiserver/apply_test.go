package apiserver_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

const applyType = "application/apply-patch+yaml"

// apply is a server-side apply by a manager; more is the rest of the query.
func apply(path, manager, body, more string) call {
	return call{
		method: "PATCH", path: path + "?fieldManager=" + manager + more, body: body, header: map[string]string{"Content-Type": applyType},
	}
}

const appliedConfig = `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm, labels: {by: %s}}, data: {%s: "%s"}}`

// fresh makes a request that must succeed and returns the answer, which was not mixed with an older one.
func fresh[T any](b *bed, c call) *T {
	b.t.Helper()
	var obj T
	b.get(&obj, c)
	return &obj
}

// owned are the entries as "manager operation subresource fields".
func owned(obj metav1.Object) []string {
	var all []string
	for _, e := range obj.GetManagedFields() {
		all = append(all, strings.Join([]string{e.Manager, string(e.Operation), e.Subresource, string(e.FieldsV1.Raw)}, " "))
	}
	return all
}

func TestApplyCreatesAndSharesAnObject(t *testing.T) {
	b := newBed(t)
	path := configMaps + "/cm"
	cm := &corev1.ConfigMap{}
	if answer := b.get(cm, apply(path, "one", fmt.Sprintf(appliedConfig, "one", "a", "1"), "")); answer.StatusCode != http.StatusCreated {
		t.Errorf("created with %d", answer.StatusCode)
	}
	if diff := cmp.Diff([]string{`one Apply  {"f:data":{"f:a":{}},"f:metadata":{"f:labels":{"f:by":{}}}}`}, owned(cm)); diff != "" {
		t.Error(diff)
	}
	revision := cm.ResourceVersion
	if answer := b.get(cm, apply(path, "one", fmt.Sprintf(appliedConfig, "one", "a", "1"), "")); answer.StatusCode != http.StatusOK {
		t.Errorf("applied again with %d", answer.StatusCode)
	}
	if cm.ResourceVersion != revision {
		t.Error("applying the same again wrote something")
	}
	cm = fresh[corev1.ConfigMap](b, apply(path, "two", `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {b: "2"}}`, ""))
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "2"}, cm.Data); diff != "" {
		t.Error(diff)
	}
	// What a manager no longer applies goes; what another applied stays.
	cm = fresh[corev1.ConfigMap](b, apply(path, "one", `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}}`, ""))
	if diff := cmp.Diff(map[string]string{"b": "2"}, cm.Data); diff != "" || len(cm.Labels) > 0 {
		t.Errorf("%v %s", cm.Labels, diff)
	}
	if diff := cmp.Diff([]string{`two Apply  {"f:data":{"f:b":{}}}`}, owned(cm)); diff != "" {
		t.Error(diff)
	}
}

func TestApplyConflicts(t *testing.T) {
	b := newBed(t)
	path := configMaps + "/cm"
	fresh[corev1.ConfigMap](b, apply(path, "one", fmt.Sprintf(appliedConfig, "one", "a", "1"), ""))
	var status metav1.Status
	answer, data := b.do(apply(path, "two", fmt.Sprintf(appliedConfig, "two", "a", "1"), ""))
	decode(t, data, &status)
	want := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonConflict, Code: 409,
		Message: `Apply failed with 1 conflict: conflict with "one": .metadata.labels.by`,
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{
			{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "one"`, Field: ".metadata.labels.by"},
		}},
	}
	if diff := cmp.Diff(want, status); diff != "" || answer.StatusCode != http.StatusConflict {
		t.Errorf("%d %s", answer.StatusCode, diff)
	}
	_, data = b.do(apply(path, "two", fmt.Sprintf(appliedConfig, "two", "a", "2"), ""))
	decode(t, data, &status)
	if want := "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .metadata.labels.by"; status.Message != want {
		t.Errorf("%q", status.Message)
	}
	cm := fresh[corev1.ConfigMap](b, apply(path, "two", fmt.Sprintf(appliedConfig, "two", "a", "2"), "&force=true&dryRun=All"))
	if cm.Data["a"] != "2" {
		t.Error("forced, the new value wins")
	}
	cm = fresh[corev1.ConfigMap](b, call{path: path})
	if cm.Data["a"] != "1" {
		t.Error("a dry run wrote something")
	}
	cm = fresh[corev1.ConfigMap](b, apply(path, "two", fmt.Sprintf(appliedConfig, "two", "a", "2"), "&force=true"))
	if diff := cmp.Diff([]string{`two Apply  {"f:data":{"f:a":{}},"f:metadata":{"f:labels":{"f:by":{}}}}`}, owned(cm)); diff != "" {
		t.Error(diff)
	}
}

// TestWritesAreTracked: creating, updating and patching owns fields too, under the program's name if no other is given.
func TestWritesAreTracked(t *testing.T) {
	b := newBed(t)
	path := configMaps + "/cm"
	named := map[string]string{"User-Agent": "kubectl/v1.37 (linux)"}
	cm := fresh[corev1.ConfigMap](b, call{method: "POST", path: configMaps, header: named, body: `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"cm"},"data":{"a":"1","b":"1"}}`})
	if diff := cmp.Diff([]string{`kubectl Update  {"f:data":{".":{},"f:a":{},"f:b":{}}}`}, owned(cm)); diff != "" {
		t.Error(diff)
	}
	if e := cm.ManagedFields[0]; e.APIVersion != "v1" || e.FieldsType != "FieldsV1" || e.Time == nil {
		t.Errorf("%+v", e)
	}
	revision := cm.ResourceVersion
	cm.Data["b"] = "2"
	fresh[corev1.ConfigMap](b, call{method: "PUT", path: path + "?fieldManager=editor", body: encode(t, cm)})
	cm = fresh[corev1.ConfigMap](b, call{
		method: "PATCH", path: path + "?fieldManager=patcher", body: `{"data":{"c":"3"}}`,
		header: map[string]string{"Content-Type": "application/merge-patch+json"},
	})
	want := []string{
		`editor Update  {"f:data":{"f:b":{}}}`, `kubectl Update  {"f:data":{".":{},"f:a":{}}}`, `patcher Update  {"f:data":{"f:c":{}}}`,
	}
	if diff := cmp.Diff(want, sorted(owned(cm))); diff != "" || cm.ResourceVersion == revision {
		t.Error(diff)
	}
	_, data := b.do(apply(path, "ci", `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {a: x, c: "3"}}`, ""))
	mustContain(t, data, `Apply failed with 1 conflict: conflict with \"kubectl\" using v1`)
	mustContain(t, data, `"field":".data.a"`)

	// An empty list forgets all.
	cm = fresh[corev1.ConfigMap](b, call{
		method: "PATCH", path: path, body: `{"metadata":{"managedFields":[{}]}}`, header: map[string]string{"Content-Type": "application/merge-patch+json"},
	})
	if len(cm.ManagedFields) != 0 {
		t.Errorf("%v", owned(cm))
	}
	// From then on nobody is tracked before somebody applies: what is there then was there before.
	cm = fresh[corev1.ConfigMap](b, apply(path, "ci", `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {a: "1", d: "4"}}`, ""))
	want = []string{`before-first-apply Update  {"f:data":{".":{},"f:a":{},"f:b":{},"f:c":{}}}`, `ci Apply  {"f:data":{"f:a":{},"f:d":{}}}`}
	if diff := cmp.Diff(want, sorted(owned(cm))); diff != "" {
		t.Error(diff)
	}
}

// TestLargeObjectsAreNotTracked: that its entries would make an object too large is no reason to refuse it, unless it is applied.
func TestLargeObjectsAreNotTracked(t *testing.T) {
	b := newBed(t)
	var data []string
	for i := range 3100 {
		data = append(data, fmt.Sprintf(`"%0253d":""`, i))
	}
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{` + strings.Join(data, ",") + `}}`
	large := fresh[corev1.ConfigMap](b, call{method: "POST", path: configMaps, body: fmt.Sprintf(body, "a")})
	if len(large.Data) != len(data) || len(large.ManagedFields) != 0 {
		t.Errorf("%d fields, %d entries", len(large.Data), len(large.ManagedFields))
	}
	answer, text := b.do(apply(configMaps+"/b", "m", fmt.Sprintf(body, "b"), ""))
	if answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", answer.StatusCode, text)
	}
}

// TestStoreWritesAreNotTracked: controllers and devices write through the store, and own nothing.
func TestStoreWritesAreNotTracked(t *testing.T) {
	b := newBed(t)
	made := b.create(podOn("p", "n1")).(*corev1.Pod)
	made.Status.Phase = corev1.PodRunning
	newer, err := b.client.UpdateStatus(t.Context(), made)
	if err != nil || len(newer.GetManagedFields()) != 0 {
		t.Errorf("%v %v", newer.GetManagedFields(), err)
	}
}

const appliedDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  %s
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: a
        image: %s
        ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
`

// TestApplyMergesListsByKey: lists whose items have a key are shared item by item, and a key with a default may be left out.
func TestApplyMergesListsByKey(t *testing.T) {
	b := newBed(t)
	path := deployments + "/hello"
	d := fresh[appsv1.Deployment](b, apply(path, "one", fmt.Sprintf(appliedDeployment, "replicas: 2", "a:1"), ""))
	if p := d.Spec.Template.Spec.Containers[0].Ports; len(p) != 2 || p[0].Protocol != corev1.ProtocolTCP || d.Generation != 1 {
		t.Errorf("%v, generation %d", p, d.Generation)
	}
	sidecar := `{apiVersion: apps/v1, kind: Deployment, metadata: {name: hello}, spec: {template: {spec: {containers: [{name: b, image: "b:1"}]}}}}`
	fresh[appsv1.Deployment](b, apply(path, "two", sidecar, ""))
	d = fresh[appsv1.Deployment](b, apply(path, "one", fmt.Sprintf(appliedDeployment, "replicas: 2", "a:2"), ""))
	var images []string
	for _, c := range d.Spec.Template.Spec.Containers {
		images = append(images, c.Image)
	}
	if diff := cmp.Diff([]string{"a:2", "b:1"}, images); diff != "" {
		t.Error(diff)
	}
	answer, data := b.do(apply(path, "one", strings.Replace(sidecar, "spec:", "spek:", 1), ""))
	if answer.StatusCode != http.StatusInternalServerError {
		t.Errorf("an unknown field: %d %s", answer.StatusCode, data)
	}
	mustContain(t, data, `"message":"failed to create typed patch object (/hello; apps/v1, Kind=Deployment): .spek: field not declared in schema"`)
}

// TestApplyScale: the replicas belong to whoever set them last, be it by the scale or by the object itself.
func TestApplyScale(t *testing.T) {
	b := newBed(t)
	path := deployments + "/hello"
	fresh[appsv1.Deployment](b, apply(path, "one", fmt.Sprintf(appliedDeployment, "replicas: 2", "a:1"), ""))
	fresh[autoscalingv1.Scale](b, call{
		method: "PATCH", path: path + "/scale?fieldManager=scaler", body: `{"spec":{"replicas":5}}`,
		header: map[string]string{"Content-Type": "application/merge-patch+json"},
	})
	d := fresh[appsv1.Deployment](b, call{path: path})
	if got := owned(d); len(got) != 2 || !strings.Contains(got[1], `scaler Update scale {"f:spec":{"f:replicas":{}}}`) || *d.Spec.Replicas != 5 {
		t.Errorf("%d %q", *d.Spec.Replicas, got)
	}
	_, data := b.do(apply(path, "one", fmt.Sprintf(appliedDeployment, "replicas: 2", "a:1"), ""))
	mustContain(t, data, `conflict with \"scaler\" with subresource \"scale\" using apps/v1`)
	d = fresh[appsv1.Deployment](b, apply(path, "one", fmt.Sprintf(appliedDeployment, "", "a:1"), ""))
	if *d.Spec.Replicas != 5 {
		t.Error("who left the replicas to a scaler must not reset them")
	}
	body := `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: hello}, spec: {replicas: 7}}`
	_, data = b.do(apply(path+"/scale", "hpa", body, ""))
	mustContain(t, data, `conflict with \"scaler\" with subresource \"scale\" using autoscaling/v1`)
	fresh[autoscalingv1.Scale](b, apply(path+"/scale", "hpa", body, "&force=true"))
	d = fresh[appsv1.Deployment](b, call{path: path})
	if *d.Spec.Replicas != 7 || !strings.Contains(strings.Join(owned(d), "\n"), `hpa Apply scale {"f:spec":{"f:replicas":{}}}`) {
		t.Errorf("%d %q", *d.Spec.Replicas, owned(d))
	}
}

func TestApplyStatus(t *testing.T) {
	b := newBed(t)
	d := b.hello()
	body := `{apiVersion: apps/v1, kind: Deployment, metadata: {name: hello}, spec: {replicas: 9}, status: {replicas: 3, readyReplicas: 3}}`
	b.get(d, apply(deployments+"/hello/status", "watcher", body, ""))
	if *d.Spec.Replicas != 3 || d.Status.ReadyReplicas != 3 {
		t.Errorf("%d %d", *d.Spec.Replicas, d.Status.ReadyReplicas)
	}
	if got := owned(d); got[0] != `watcher Apply status {"f:status":{"f:readyReplicas":{},"f:replicas":{}}}` {
		t.Errorf("%q", got)
	}
	if answer, _ := b.do(apply(deployments+"/other/status", "watcher", strings.ReplaceAll(body, "hello", "other"), "")); answer.StatusCode != http.StatusNotFound {
		t.Errorf("applying the status of nothing: %d", answer.StatusCode)
	}
}

func TestApplyRefusals(t *testing.T) {
	b := newBed(t)
	b.create(configMap("cm", nil))
	path := configMaps + "/cm"
	good := `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}}`
	for _, c := range []struct {
		call call
		code int
		want string
	}{
		{apply(path, "", good, ""), 422, `fieldManager: Required value: is required for apply patch`},
		{apply(path, "m", "[]", ""), 400, `error decoding patch: `},
		{apply(path, "m", "a: {b: c", ""), 400, `error decoding patch: `},
		{apply(path, "m", `{apiVersion: v1, kind: Secret, metadata: {name: cm}}`, ""), 400, `invalid object type: /v1, Kind=Secret`},
		{
			apply(path, "m", `{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}`, ""), 400,
			`the name of the object (other) does not match the name on the URL (cm)`,
		},
		{
			apply(path, "m", `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm, managedFields: [{manager: x}]}}`, ""), 400,
			`metadata.managedFields must be nil`,
		},
		{
			apply(configMaps+"/new", "m", `{apiVersion: v1, kind: ConfigMap, metadata: {name: new, uid: u}}`, ""), 409,
			`uid mismatch: the provided object specified uid u, and no existing object was found`,
		},
		{
			apply(path, "m", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm"},"data":{"a":"1","a":"2"}}`, "&fieldValidation=Strict"), 400,
			`error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors`,
		},
	} {
		answer, data := b.do(c.call)
		if answer.StatusCode != c.code {
			t.Errorf("%s: %d %s", c.call.body, answer.StatusCode, data)
		}
		mustContain(t, data, c.want)
	}
}

// TestOldVersionsAreForgotten: an entry of a version that is not served any more cannot be compared with anything.
func TestOldVersionsAreForgotten(t *testing.T) {
	b := newBed(t)
	d := b.hello()
	d.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "old", Operation: "Apply", APIVersion: "apps/v1beta1", FieldsType: "FieldsV1",
		FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{"f:replicas":{}}}`)},
	}}
	if _, err := b.client.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	b.get(d, apply(deployments+"/hello", "new", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: hello}, spec: {replicas: 8}}`, ""))
	if diff := cmp.Diff([]string{`new Apply  {"f:spec":{"f:replicas":{}}}`}, owned(d)); diff != "" {
		t.Error(diff)
	}
}

// TestEveryKindCanBeApplied: each has its schema, and its first apply owns just what is applied.
func TestEveryKindCanBeApplied(t *testing.T) {
	for _, k := range api.Served() {
		b := newBed(t)
		gv, path := k.GVK.GroupVersion().String(), "/apis/"+k.GVK.GroupVersion().String()
		if k.GVK.Group == "" {
			path = "/api/v1"
		}
		if k.Namespaced {
			path += "/namespaces/default"
		}
		body := fmt.Sprintf(`{apiVersion: %s, kind: %s, metadata: {name: x, labels: {a: b}}}`, gv, k.GVK.Kind)
		answer, data := b.do(apply(path+"/"+k.Resource+"/x", "m", body, ""))
		// Some kinds refuse an empty object; that they come to validate it shows that it was merged.
		if answer.StatusCode != http.StatusCreated && answer.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", k.Resource, answer.StatusCode, data)
		}
	}
}

// TestApplyAnywhere: a follower passes a write on with its author's program, and all servers show whose the fields are.
func TestApplyAnywhere(t *testing.T) {
	leader, follower := newPair(t)
	path := configMaps + "/cm"
	fresh[corev1.ConfigMap](follower, apply(path, "one", fmt.Sprintf(appliedConfig, "one", "a", "1"), ""))
	merge := map[string]string{"Content-Type": "application/merge-patch+json", "User-Agent": "helm/v4"}
	fresh[corev1.ConfigMap](follower, call{method: "PATCH", path: path, header: merge, body: `{"data":{"b":"2"}}`})
	want := []string{`helm Update  {"f:data":{"f:b":{}}}`, `one Apply  {"f:data":{"f:a":{}},"f:metadata":{"f:labels":{"f:by":{}}}}`}
	for _, b := range []*bed{leader, follower} {
		if diff := cmp.Diff(want, sorted(owned(fresh[corev1.ConfigMap](b, call{path: path})))); diff != "" {
			t.Error(diff)
		}
	}
	if answer, data := follower.do(apply(path, "two", fmt.Sprintf(appliedConfig, "two", "b", "3"), "")); answer.StatusCode != http.StatusConflict {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
}

// TestApplyNeedsTheRightToCreate: who may patch may apply to what is there, but not make it.
func TestApplyNeedsTheRightToCreate(t *testing.T) {
	b := newBed(t, withRoles)
	b.create(configMap("cm", nil))
	b.grant("patcher", "default", "jane", verbsOn("patch", "configmaps"))
	body := `{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}, data: {a: b}}`
	there, absent := apply(configMaps+"/cm", "m", fmt.Sprintf(body, "cm"), ""), apply(configMaps+"/new", "m", fmt.Sprintf(body, "new"), "")
	there.as, absent.as = "jane|crew", "jane|crew"
	if answer, data := b.do(there); answer.StatusCode != http.StatusOK {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	answer, data := b.do(absent)
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	mustContain(t, data, `configmaps \"new\" is forbidden: User \"jane\" cannot create resource \"configmaps\"`)
}

// TestDryRuns: every verb does everything but the write.
func TestDryRuns(t *testing.T) {
	b := newBed(t)
	b.hello()
	b.create(configMap("cm", map[string]string{"a": "b"}))
	b.create(podOn("p", ""))
	before := b.durable.Revision()
	merge := map[string]string{"Content-Type": "application/merge-patch+json"}
	for _, c := range []call{
		{method: "POST", path: configMaps + "?dryRun=All", body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"x-"}}`},
		{method: "PUT", path: configMaps + "/cm?dryRun=All", body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm"}}`},
		{method: "PATCH", path: configMaps + "/cm?dryRun=All", body: `{"data":{"x":"y"}}`, header: merge},
		apply(configMaps+"/cm", "m", `{apiVersion: v1, kind: ConfigMap, metadata: {name: cm}, data: {x: z}}`, "&dryRun=All"),
		apply(configMaps+"/new", "m", `{apiVersion: v1, kind: ConfigMap, metadata: {name: new}, data: {x: z}}`, "&dryRun=All"),
		{method: "DELETE", path: configMaps + "/cm?dryRun=All"},
		{method: "DELETE", path: configMaps + "/cm", body: `{"dryRun":["All"]}`},
		{method: "DELETE", path: configMaps + "?dryRun=All&labelSelector=a%3Db"},
		{method: "PATCH", path: deployments + "/hello/scale?dryRun=All", body: `{"spec":{"replicas":7}}`, header: merge},
		{method: "PATCH", path: deployments + "/hello/status?dryRun=All", body: `{"status":{"replicas":3}}`, header: merge},
		{method: "POST", path: pods + "/p/binding?dryRun=All", body: `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}`},
		{method: "POST", path: pods + "/p/eviction?dryRun=All", body: `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}`},
		{method: "PUT", path: "/api/v1/namespaces/default/finalize?dryRun=All", body: `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}}`},
	} {
		answer, data := b.do(c)
		if answer.StatusCode >= 300 || b.durable.Revision() != before {
			t.Fatalf("%s %s: %d %s, revision %d after %d", c.method, c.path, answer.StatusCode, data, b.durable.Revision(), before)
		}
	}
}
