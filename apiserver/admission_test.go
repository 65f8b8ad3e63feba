package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const hostPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"hostNetwork":true,"containers":[{"name":"c","image":"i"}]}}`

// What admission says reaches the client: as a Status, or as a warning.
func TestAdmissionSpeaks(t *testing.T) {
	b := newBed(t)
	labels := `{"metadata":{"labels":{"pod-security.kubernetes.io/` + `enforce":"baseline"}}}`
	merge := map[string]string{"Content-Type": "application/merge-patch+json"}
	var ignored map[string]any
	b.get(&ignored, call{method: http.MethodPatch, path: "/api/v1/namespaces/default", body: labels, header: merge})
	asJSON := map[string]string{"Content-Type": "application/json"}
	answer, body := b.do(call{method: http.MethodPost, path: "/api/v1/namespaces/default/pods", body: hostPod, header: asJSON})
	var status metav1.Status
	decode(t, body, &status)
	want := `pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`
	if answer.StatusCode != http.StatusForbidden || status.Message != want {
		t.Errorf("%d %s", answer.StatusCode, status.Message)
	}
	b.get(&ignored, call{
		method: http.MethodPatch, path: "/api/v1/namespaces/default", header: merge,
		body: strings.ReplaceAll(labels, `enforce":"baseline"`, `enforce":"privileged","pod-security.kubernetes.io/warn":"baseline"`),
	})
	answer = b.get(&ignored, call{method: http.MethodPost, path: "/api/v1/namespaces/default/pods", body: hostPod, header: asJSON})
	want = `299 - "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"`
	if got := answer.Header.Get("Warning"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// A resize keeps to what limits the namespace.
func TestResize(t *testing.T) {
	b := newBed(t)
	b.create(&corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "default"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"requests.cpu": resource.MustParse("250m")}},
	})
	p := podOn("p", "n")
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("100m")}
	b.create(p)
	resize := func(cpu string) (int, string) {
		answer, body := b.do(call{
			method: http.MethodPatch, path: pods + "/p/resize", header: map[string]string{"Content-Type": "application/strategic-merge-patch+json"},
			body: `{"spec":{"containers":[{"name":"c","image":"other","resources":{"requests":{"cpu":"` + cpu + `"}}}]}}`,
		})
		return answer.StatusCode, string(body)
	}
	if code, text := resize("300m"); code != http.StatusForbidden || !strings.Contains(text, "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=100m") {
		t.Errorf("%d %s", code, text)
	}
	code, text := resize("200m")
	var got corev1.Pod
	decode(t, []byte(text), &got)
	if c := got.Spec.Containers[0]; code != http.StatusOK || c.Resources.Requests.Cpu().String() != "200m" || c.Image != "i:1" {
		t.Errorf("%d %s", code, text)
	}
}
