package pod

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// TestEphemeral: a container that is added to a running pod is started once, sees the processes of its target, and is neither
// restarted nor counted when it ends.
func TestEphemeral(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	o := &Observed{Seen: now, Pod: runtime.Pod{
		Sandboxes:  []runtime.Sandbox{{ID: "s", Ready: true, CreatedAt: now}},
		Containers: []runtime.Container{{ID: "1", SandboxID: "s", Name: "c", State: runtime.Running, CreatedAt: now, StartedAt: now}},
	}}
	if actions := Step(p, o, now); len(actions) != 0 {
		t.Fatalf("%+v", actions)
	}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "d"}, TargetContainerName: "c",
	}}
	if diff := cmp.Diff([]Action{{Kind: StartContainer, Container: "debug"}}, Step(p, o, now)); diff != "" {
		t.Fatal(diff)
	}
	if target, name := Target(p, o, "debug"); name != "c" || target.ID != "1" {
		t.Errorf("%v %q", target, name)
	}
	if target, name := Target(p, o, "c"); target != nil || name != "" {
		t.Errorf("%v %q", target, name)
	}
	o.Containers = append([]runtime.Container{{ID: "2", SandboxID: "s", Name: "debug", State: runtime.Running, CreatedAt: now, StartedAt: now}}, o.Containers...)
	if s := Status(p, o, "r", "", now); len(s.EphemeralContainerStatuses) != 1 || s.EphemeralContainerStatuses[0].State.Running == nil || s.EphemeralContainerStatuses[0].Ready {
		t.Errorf("%+v", s.EphemeralContainerStatuses)
	}
	o.Containers[0].State, o.Containers[0].ExitCode, o.Containers[0].FinishedAt = runtime.Exited, 1, now
	if actions := Step(p, o, now); len(actions) != 0 {
		t.Errorf("it had its run: %+v", actions)
	}
	s := Status(p, o, "r", "", now)
	if s.Phase != corev1.PodRunning || s.EphemeralContainerStatuses[0].State.Terminated == nil || len(s.ContainerStatuses) != 1 {
		t.Errorf("%s %+v", s.Phase, s.EphemeralContainerStatuses)
	}
	// Also when its traces are gone: it is known that it was there.
	o.Prior, o.Containers = &s, o.Containers[1:]
	if actions := Step(p, o, now); len(actions) != 0 {
		t.Errorf("it had its run: %+v", actions)
	}
}
