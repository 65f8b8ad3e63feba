package apiserver_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	hpasV1   = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
	hpasV2   = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
	eventsOf = "/apis/events.k8s.io/v1/namespaces/default/events"
)

// TestTwoVersions: what is written in one version is read, selected, watched and patched in the other.
func TestTwoVersions(t *testing.T) {
	b := newBed(t)
	target := `"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}`
	b.write(call{method: "POST", path: hpasV1, body: `{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"web"},
		"spec":{` + target + `,"maxReplicas":5,"targetCPUUtilizationPercentage":60}}`}, 201)
	var newer autoscalingv2.HorizontalPodAutoscaler
	b.get(&newer, call{path: hpasV2 + "/web"})
	if m := newer.Spec.Metrics; len(m) != 1 || m[0].Resource.Name != corev1.ResourceCPU || *m[0].Resource.Target.AverageUtilization != 60 {
		t.Errorf("as v2: %+v", newer.Spec)
	}
	var older autoscalingv1.HorizontalPodAutoscaler
	strategic := map[string]string{"Content-Type": "application/strategic-merge-patch+json"}
	b.get(&older, call{method: "PATCH", path: hpasV1 + "/web", body: `{"spec":{"targetCPUUtilizationPercentage":40}}`, header: strategic})
	b.get(&newer, call{path: hpasV2 + "/web"})
	if *older.Spec.TargetCPUUtilizationPercentage != 40 || *newer.Spec.Metrics[0].Resource.Target.AverageUtilization != 40 {
		t.Errorf("patched: %+v and %+v", older.Spec, newer.Spec)
	}
	if older.APIVersion != "autoscaling/v1" || newer.APIVersion != "autoscaling/v2" || older.UID != newer.UID {
		t.Errorf("%v and %v", older.ObjectMeta, newer.ObjectMeta)
	}
	_, data := b.do(call{path: hpasV1, header: accept("application/vnd.kubernetes.protobuf")})
	var envelope runtime.Unknown
	var list autoscalingv1.HorizontalPodAutoscalerList
	if err := envelope.Unmarshal(data[4:]); err != nil {
		t.Fatal(err)
	}
	if err := list.Unmarshal(envelope.Raw); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || *list.Items[0].Spec.TargetCPUUtilizationPercentage != 40 || list.Items[0].ResourceVersion != newer.ResourceVersion {
		t.Errorf("as Protobuf: %+v", list)
	}
}

// TestFieldsOfTwoVersions: each manager owns its fields in the version that it speaks, and a write in one version sees what is
// owned in the other.
func TestFieldsOfTwoVersions(t *testing.T) {
	b := newBed(t)
	var hpa metav1.PartialObjectMetadata
	b.get(&hpa, apply(hpasV2+"/web", "two", `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web},
		spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 5}}`, ""))
	b.get(&hpa, apply(hpasV1+"/web", "one", `{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web},
		spec: {minReplicas: 2}}`, ""))
	by := map[string]string{}
	for _, entry := range hpa.ManagedFields {
		by[entry.Manager] = entry.APIVersion
	}
	if diff := cmp.Diff(map[string]string{"one": "autoscaling/v1", "two": "autoscaling/v2"}, by); diff != "" {
		t.Error(diff)
	}
	answer, data := b.do(apply(hpasV1+"/web", "one", `{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web},
		spec: {minReplicas: 2, maxReplicas: 9}}`, ""))
	if answer.StatusCode != 409 {
		t.Errorf("taking another's field: %d %s", answer.StatusCode, data)
	}
	mustContain(t, data, `.spec.maxReplicas`)
}

// TestEventsAreOne: both groups show the same events, each under its own names.
func TestEventsAreOne(t *testing.T) {
	b := newBed(t)
	b.create(&corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "default"}, Reason: "Pulled", Message: "done",
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "web", Namespace: "default"}, ReportingController: "agent",
	})
	for selector, want := range map[string]int{
		"regarding.name=web,reportingController=agent": 1, "regarding.name=other": 0, "reason=Pulled": 1,
	} {
		var list eventsv1.EventList
		b.get(&list, call{path: eventsOf + "?fieldSelector=" + selector})
		if len(list.Items) != want || want == 1 && (list.Items[0].Note != "done" || list.Items[0].Regarding.Name != "web") {
			t.Errorf("%s: %+v", selector, list)
		}
	}
	for path, selector := range map[string]string{eventsOf: "involvedObject.name=web", "/api/v1/namespaces/default/events": "regarding.name=web"} {
		if answer, data := b.do(call{path: path + "?fieldSelector=" + selector}); answer.StatusCode != 400 {
			t.Errorf("%s by %s: %d %s", path, selector, answer.StatusCode, data)
		}
	}
	if answer, _ := b.do(call{method: "DELETE", path: eventsOf + "/e"}); answer.StatusCode != 200 {
		t.Errorf("delete: %d", answer.StatusCode)
	}
	if answer, _ := b.do(call{path: "/api/v1/namespaces/default/events/e"}); answer.StatusCode != 404 {
		t.Errorf("gone from both: %d", answer.StatusCode)
	}
}

// TestApproval: a certificate is asked for by whoever asks, and approved by way of a subresource that changes nothing else.
func TestApproval(t *testing.T) {
	b := newBed(t)
	b.write(call{method: "POST", path: "/apis/certificates.k8s.io/v1/certificatesigningrequests", as: "jane|system:masters", body: `{
		"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"name":"x"},
		"spec":{"username":"root","signerName":"example.com/users","usages":["client auth"],"request":"` + signingRequest(t) + `"}}`}, 201)
	made := b.write(call{path: "/apis/certificates.k8s.io/v1/certificatesigningrequests/x"}, 200)
	if who, _, _ := unstructured.NestedFieldNoCopy(made.Object, "spec", "username"); who != "jane" {
		t.Errorf("asked by %v", who)
	}
	conditions := `{"spec":{"signerName":"example.com/other"},"status":{"certificate":"eA==","conditions":[{"type":"Approved","status":"True","reason":"R","message":"m"}]}}`
	approved := b.write(patchOf("/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval", []byte(conditions)), 200)
	if signer, _, _ := unstructured.NestedFieldNoCopy(approved.Object, "spec", "signerName"); signer != "example.com/users" {
		t.Errorf("approval changed the signer to %v", signer)
	}
	if _, issued, _ := unstructured.NestedFieldNoCopy(approved.Object, "status", "certificate"); issued {
		t.Error("approval issued a certificate")
	}
	refused(t, b, patchOf("/apis/certificates.k8s.io/v1/certificatesigningrequests/x/status", []byte(`{"status":{"conditions":[]}}`)),
		"status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"")
}

// signingRequest is the one of the example.
func signingRequest(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/kinds/others.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "usages: [client auth], request: ")
	request, _, _ := strings.Cut(rest, "}")
	return request
}
