package pod

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-edge/shoal/agent/runtime"
)

func TestResize(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	restart := []corev1.ContainerResizePolicy{
		{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.NotRequired}, {ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer},
	}
	for _, tc := range []struct {
		what, made, applied string
		policy              []corev1.ContainerResizePolicy
		want                string
		shown               bool
	}{
		{"as it was made", "cpu=/1,memory=/64Mi", "", nil, "[]", true},
		{"made by an agent that did not say", "", "", nil, "[]", false},
		{"more CPU", "cpu=/500m,memory=/64Mi", "", nil, "[ResizeContainer]", false},
		{"done", "cpu=/500m,memory=/64Mi", "cpu=/1,memory=/64Mi", nil, "[]", true},
		{"more CPU, memory by a restart", "cpu=/500m,memory=/64Mi", "", restart, "[ResizeContainer]", false},
		{"more memory by a restart", "cpu=/1,memory=/32Mi", "", restart, "[StopContainer]", false},
	} {
		c := corev1.Container{Name: "c", Image: "i", ResizePolicy: tc.policy, Resources: corev1.ResourceRequirements{Limits: list("1", "64Mi")}}
		p := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{c}}}
		o := &Observed{Sizes: map[string]string{"id": tc.applied}, Pod: runtime.Pod{
			Sandboxes: []runtime.Sandbox{{ID: "s", Ready: true}},
			Containers: []runtime.Container{{
				ID: "id", SandboxID: "s", Name: "c", State: runtime.Running, StartedAt: now,
				Annotations: map[string]string{AnnotationImage: "i", AnnotationResources: tc.made},
			}},
		}}
		var kinds []Kind
		for _, a := range Step(p, o, now) {
			kinds = append(kinds, a.Kind)
		}
		status := Status(p, o, "test", "", now)
		if got := fmt.Sprint(kinds); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.what, got, tc.want)
		}
		if shown := status.ContainerStatuses[0].Resources != nil; shown != tc.shown {
			t.Errorf("%s: resources are shown: %t", tc.what, shown)
		}
		if busy := find(status.Conditions, corev1.PodResizeInProgress) != nil; busy != (tc.want != "[]") {
			t.Errorf("%s: in progress: %t", tc.what, busy)
		}
	}
}
