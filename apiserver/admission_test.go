package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

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
