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

	"github.com/shoal-edge/shoal/store"
)

const helloYAML = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 3
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - {name: a, image: "a:1"}
      - {name: b, image: "b:1"}
`

const deployments = "/apis/apps/v1/namespaces/default/deployments"

func (b *bed) hello() *appsv1.Deployment {
	b.t.Helper()
	d := &appsv1.Deployment{}
	b.get(d, call{method: "POST", path: deployments, body: helloYAML, header: map[string]string{"Content-Type": yamlType}})
	return d
}

func TestPatches(t *testing.T) {
	b := newBed(t)
	b.hello()
	images := func(d *appsv1.Deployment) (out []string) {
		for _, c := range d.Spec.Template.Spec.Containers {
			out = append(out, c.Name+"="+c.Image)
		}
		return out
	}
	for i, c := range []struct {
		kind, body string
		want       []string
		generation int64
	}{
		{"strategic-merge-patch", `{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"b:2"}]}}}}`, []string{"a=a:1", "b=b:2"}, 2},
		{"json-patch", `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"a:2"}]`, []string{"a=a:2", "b=b:2"}, 3},
		{"merge-patch", `{"metadata":{"labels":{"x":"y"}}}`, []string{"a=a:2", "b=b:2"}, 3},
		{"strategic-merge-patch", `{"spec":{"template":{"spec":{"containers":[{"name":"b","$patch":"delete"}]}}}}`, []string{"a=a:2"}, 4},
		{"merge-patch", `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"c:1"}]}}},"status":{"replicas":9}}`, []string{"c=c:1"}, 5},
	} {
		var d appsv1.Deployment
		b.get(&d, call{
			method: "PATCH", path: deployments + "/hello", body: c.body, header: map[string]string{"Content-Type": "application/" + c.kind + "+json"},
		})
		got := images(&d)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%d: %s", i, diff)
		}
		if d.Generation != c.generation || d.Status.Replicas != 0 || d.Kind != "Deployment" {
			t.Errorf("%d: generation %d, status %v, kind %q", i, d.Generation, d.Status, d.Kind)
		}
	}
}

// TestCopyBomb: a small JSON patch must not become a large object by copying what it has copied.
func TestCopyBomb(t *testing.T) {
	b := newBed(t)
	b.create(configMap("cm", nil))
	ops := []string{`{"op":"add","path":"/data/0","value":"` + strings.Repeat("x", 1000) + `"}`}
	for range 40 {
		ops = append(ops, `{"op":"copy","from":"/data","path":"/data/d"}`)
	}
	answer, data := b.do(call{
		method: "PATCH", path: configMaps + "/cm", body: "[" + strings.Join(ops, ",") + "]",
		header: map[string]string{"Content-Type": "application/json-patch+json"},
	})
	if answer.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("%d %.300s", answer.StatusCode, data)
	}
}

func TestCreateCompletes(t *testing.T) {
	b := newBed(t)
	d := b.hello()
	if d.UID == "" || d.ResourceVersion == "" || d.Generation != 1 || d.Namespace != "default" || d.Spec.RevisionHistoryLimit == nil {
		t.Errorf("created: %+v", d.ObjectMeta)
	}
	var c corev1.ConfigMap
	b.get(&c, call{method: "POST", path: configMaps + "?dryRun=All", body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"x-"}}`})
	if len(c.Name) != 7 {
		t.Errorf("generated name %q", c.Name)
	}
	if answer, _ := b.do(call{path: configMaps + "/" + c.Name}); answer.StatusCode != http.StatusNotFound {
		t.Error("a dry run created something")
	}
}

func TestScale(t *testing.T) {
	b := newBed(t)
	b.hello()
	var scale autoscalingv1.Scale
	b.get(&scale, call{path: deployments + "/hello/scale"})
	if scale.Spec.Replicas != 3 || scale.Status.Selector != "app=hello" || scale.Kind != "Scale" {
		t.Errorf("%+v", scale)
	}
	b.get(&scale, call{
		method: "PATCH", path: deployments + "/hello/scale", body: `{"spec":{"replicas":5}}`,
		header: map[string]string{"Content-Type": "application/merge-patch+json"},
	})
	body := fmt.Sprintf(`{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"hello","resourceVersion":%q},"spec":{"replicas":7}}`,
		scale.ResourceVersion)
	b.get(&scale, call{method: "PUT", path: deployments + "/hello/scale", body: body})
	if answer, data := b.do(call{method: "PUT", path: deployments + "/hello/scale", body: body}); answer.StatusCode != http.StatusConflict {
		t.Errorf("a stale scale: %d %s", answer.StatusCode, data)
	}
	var d appsv1.Deployment
	b.get(&d, call{path: deployments + "/hello"})
	if *d.Spec.Replicas != 7 || d.Generation != 3 {
		t.Errorf("replicas %d, generation %d", *d.Spec.Replicas, d.Generation)
	}
}

func TestStatusSubresource(t *testing.T) {
	b := newBed(t)
	d := b.hello()
	d.Status.Replicas = 3
	*d.Spec.Replicas = 9
	b.get(d, call{
		method: "PATCH", path: deployments + "/hello/status", body: `{"status":{"replicas":3},"spec":{"replicas":9}}`,
		header: map[string]string{"Content-Type": "application/merge-patch+json"},
	})
	if d.Status.Replicas != 3 || *d.Spec.Replicas != 3 || d.Generation != 1 {
		t.Errorf("%+v", d.Status)
	}
}

func TestDelete(t *testing.T) {
	b := newBed(t)
	b.create(podOn("bound", "n1"))
	b.create(podOn("free", ""))
	cm := b.create(configMap("cm", nil))

	var pod corev1.Pod
	b.get(&pod, call{method: "DELETE", path: pods + "/bound", body: `{"gracePeriodSeconds":7}`})
	if pod.DeletionTimestamp == nil || *pod.DeletionGracePeriodSeconds != 7 {
		t.Errorf("a bound pod must be given time: %+v", pod.ObjectMeta)
	}
	b.get(&pod, call{method: "DELETE", path: pods + "/free"})
	if _, there := b.client.Reader().Get(store.Key{Resource: "pods", Namespace: "default", Name: "free"}); there || pod.Name != "free" {
		t.Error("a free pod goes at once, and is shown once more")
	}
	var status metav1.Status
	b.get(&status, call{method: "DELETE", path: configMaps + "/cm"})
	want := &metav1.StatusDetails{Name: "cm", Kind: "configmaps", UID: cm.GetUID()}
	if diff := cmp.Diff(want, status.Details); diff != "" || status.Status != "Success" {
		t.Errorf("%s %s", status.Status, diff)
	}
}

func TestDeleteCollection(t *testing.T) {
	b := newBed(t)
	for i := range 3 {
		b.create(configMap(fmt.Sprint("a", i), map[string]string{"app": "a"}))
	}
	b.create(configMap("b", nil))
	var list corev1.ConfigMapList
	b.get(&list, call{method: "DELETE", path: configMaps + "?labelSelector=app%3Da"})
	left, _ := b.client.Reader().List("configmaps", "default")
	if len(list.Items) != 3 || len(left) != 1 || left[0].Key.Name != "b" {
		t.Errorf("deleted %d, left %v", len(list.Items), left)
	}
}

func TestBindingAndEviction(t *testing.T) {
	b := newBed(t)
	b.create(podOn("p", ""))
	var status metav1.Status
	b.get(&status, call{method: "POST", path: pods + "/p/binding", body: `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}`})
	var pod corev1.Pod
	b.get(&pod, call{path: pods + "/p"})
	if pod.Spec.NodeName != "n1" || len(pod.Status.Conditions) != 1 || pod.Status.Conditions[0].Type != corev1.PodScheduled {
		t.Errorf("%q %v", pod.Spec.NodeName, pod.Status.Conditions)
	}
	b.get(&status, call{
		method: "POST", path: pods + "/p/eviction",
		body: `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"},"deleteOptions":{"gracePeriodSeconds":1}}`,
	})
	b.get(&pod, call{path: pods + "/p"})
	if pod.DeletionTimestamp == nil {
		t.Error("an evicted pod is terminating")
	}
}

func TestNamespaceFinalize(t *testing.T) {
	b := newBed(t)
	b.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	var n corev1.Namespace
	b.get(&n, call{method: "DELETE", path: "/api/v1/namespaces/x"})
	if n.Status.Phase != corev1.NamespaceTerminating {
		t.Errorf("phase %s", n.Status.Phase)
	}
	answer, data := b.do(call{method: "POST", path: "/api/v1/namespaces/x/configmaps", body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`})
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("%d %s", answer.StatusCode, data)
	}
	mustContain(t, data, "unable to create new content in namespace x because it is being terminated")
	b.get(&n, call{method: "PUT", path: "/api/v1/namespaces/x/finalize", body: `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"},"spec":{}}`})
	if answer, _ := b.do(call{path: "/api/v1/namespaces/x"}); answer.StatusCode != http.StatusNotFound {
		t.Error("a namespace without finalizers that ends is gone")
	}
}

func TestEventsAreCreatedByUpdate(t *testing.T) {
	b := newBed(t)
	body := `{"apiVersion":"v1","kind":"Event","metadata":{"name":"e","namespace":"default"},"involvedObject":{"kind":"Pod","namespace":"default","name":"p"},"reason":"R","type":"Normal"}`
	var e corev1.Event
	answer := b.get(&e, call{method: "PUT", path: "/api/v1/namespaces/default/events/e", body: body})
	if answer.StatusCode != http.StatusCreated || e.UID == "" {
		t.Errorf("%d %+v", answer.StatusCode, e)
	}
	var list corev1.EventList
	b.get(&list, call{path: "/api/v1/events?fieldSelector=involvedObject.name%3Dp,reason%3DR"})
	if len(list.Items) != 1 {
		t.Errorf("%d events", len(list.Items))
	}
}

// TestOwnersAreNamedOnce: the garbage collector counts owners, so that none may be there twice.
func TestOwnersAreNamedOnce(t *testing.T) {
	b := newBed(t)
	owner := `{"apiVersion":"v1","kind":"ConfigMap","name":"o","uid":"u-1"}`
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm","ownerReferences":[` + owner + `,` + owner + `]}}`
	var cm corev1.ConfigMap
	answer := b.get(&cm, call{method: "POST", path: configMaps, body: body})
	want := `299 - ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such ` +
		`requests as early as 1.24; please fix your requests; duplicate UID(s) observed: u-1"`
	if got := answer.Header.Get("Warning"); got != want || len(cm.OwnerReferences) != 1 {
		t.Errorf("%q %v", got, cm.OwnerReferences)
	}
	answer = b.get(&cm, call{
		method: "PATCH", path: configMaps + "/cm", body: `[{"op":"add","path":"/metadata/ownerReferences/-","value":` + owner + `}]`,
		header: map[string]string{"Content-Type": "application/json-patch+json"},
	})
	if got := answer.Header.Get("Warning"); !strings.Contains(got, "after mutating admission happens") || len(cm.OwnerReferences) != 1 {
		t.Errorf("%q %v", got, cm.OwnerReferences)
	}
}
