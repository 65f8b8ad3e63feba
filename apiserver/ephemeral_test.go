package apiserver_test

import (
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestEphemeralContainers(t *testing.T) {
	b := newBed(t)
	b.create(podOn("p", "n1"))
	strategic := map[string]string{"Content-Type": "application/strategic-merge-patch+json"}
	path := pods + "/p/ephemeralcontainers"
	body := `{"metadata":{"labels":{"x":"y"}},"spec":{"nodeName":"n2","ephemeralContainers":[{"name":"debug","image":"d","targetContainerName":"c"}]}}`
	pod := fresh[corev1.Pod](b, call{method: "PATCH", path: path + "?fieldManager=debugger", body: body, header: strategic})
	if len(pod.Spec.EphemeralContainers) != 1 || pod.Spec.NodeName != "n1" || pod.Labels["x"] != "" {
		t.Errorf("%+v", pod)
	}
	if e := pod.Spec.EphemeralContainers[0]; e.ImagePullPolicy != corev1.PullAlways || e.TerminationMessagePath == "" {
		t.Errorf("no defaults: %+v", e)
	}
	if pod.Generation != 2 {
		t.Errorf("generation %d", pod.Generation)
	}
	for body, want := range map[string]string{
		`{"spec":{"ephemeralContainers":[{"name":"c","image":"d"}]}}`:                               `Duplicate value: \"c\"`,
		`{"spec":{"ephemeralContainers":[{"name":"debug","image":"other"}]}}`:                       `existing ephemeral containers \"debug\" may not be changed`,
		`{"spec":{"ephemeralContainers":[{"name":"e","image":"d","ports":[{"containerPort":1}]}]}}`: `cannot be set for an Ephemeral Container`,
	} {
		answer, data := b.do(call{method: "PATCH", path: path, body: body, header: strategic})
		if answer.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", body, answer.StatusCode, data)
		}
		mustContain(t, data, want)
	}
	answer, data := b.do(call{method: "PATCH", path: pods + "/p", body: `{"spec":{"ephemeralContainers":[{"name":"f","image":"d"}]}}`, header: strategic})
	if answer.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("by way of the pod itself: %d %s", answer.StatusCode, data)
	}
	if got := fresh[corev1.Pod](b, call{path: path}); len(got.Spec.EphemeralContainers) != 1 {
		t.Errorf("%+v", got.Spec.EphemeralContainers)
	}
}
