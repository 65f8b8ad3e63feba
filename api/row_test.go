package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
)

var (
	now     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	minutes = func(n int) metav1.Time { return metav1.NewTime(now.Add(-time.Duration(n) * time.Minute)) }
	running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	exited  = func(code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
	}
	waiting = func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
)

func TestPodRow(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *corev1.Pod)
		want   []any // ready, status, restarts
	}{
		"pending": {func(*corev1.Pod) {}, []any{"0/2", "Pending", "0"}},
		"running, restarted": {func(p *corev1.Pod) {
			last := exited(1, "Error")
			last.Terminated.FinishedAt = minutes(3)
			p.Status.ContainerStatuses = []corev1.ContainerStatus{
				{Ready: true, State: running, RestartCount: 1, LastTerminationState: last}, {Ready: true, State: running},
			}
			p.Status.Phase = corev1.PodRunning
		}, []any{"2/2", "Running", "1 (3m ago)"}},
		"first container's reason wins": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: waiting("CrashLoopBackOff")}, {State: waiting("ImagePullBackOff")}}
		}, []any{"0/2", "CrashLoopBackOff", "0"}},
		"one completed, one running": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: exited(0, "Completed")}, {Ready: true, State: running}}
		}, []any{"1/2", "NotReady", "0"}},
		"completed hides a failure": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: exited(0, "Completed")}, {State: exited(2, "")}}
		}, []any{"0/2", "ExitCode:2", "0"}},
		"init": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "a"}, {Name: "b"}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: exited(0, "")}, {Name: "b", State: running}}
		}, []any{"0/2", "Init:1/2", "0"}},
		"init fails": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "a"}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "a", RestartCount: 2, State: waiting("CrashLoopBackOff")}}
		}, []any{"0/2", "Init:CrashLoopBackOff", "2"}},
		"sidecar": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "a", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "a", Ready: true, Started: ptr.To(true), State: running}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Ready: true, State: running}, {Ready: true, State: running}}
			p.Status.Phase = corev1.PodRunning
		}, []any{"3/3", "Running", "0"}},
		"terminating": {func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(minutes(1)) }, []any{"0/2", "Terminating", "0"}},
		"unreachable": {func(p *corev1.Pod) {
			p.DeletionTimestamp, p.Status.Reason = ptr.To(minutes(1)), "NodeLost"
		}, []any{"0/2", "Unknown", "0"}},
		"gated": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: corev1.PodReasonSchedulingGated}}
		}, []any{"0/2", "SchedulingGated", "0"}},
		"evicted": {func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, []any{"0/2", "Evicted", "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: minutes(90)},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "x"}, {Name: "y"}}},
				Status:     corev1.PodStatus{Phase: corev1.PodPending},
			}
			c.change(p)
			row := api.ByResource("pods").Row(p, now)
			want := append(append([]any{"p"}, c.want...), "90m", "<none>", "<none>", "<none>", "<none>")
			if diff := cmp.Diff(want, row); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOtherRows(t *testing.T) {
	d := hello()
	d.CreationTimestamp, d.Status.ReadyReplicas = minutes(5), 2
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", CreationTimestamp: minutes(2), Labels: map[string]string{"node-role.kubernetes.io/server": ""}},
		Spec:       corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1", KernelVersion: "6.1", Architecture: "arm64"},
		},
	}
	event := &corev1.Event{
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p"}, Type: "Normal", Reason: "Pulled", Message: "done\n",
		FirstTimestamp: minutes(9), LastTimestamp: minutes(8), Source: corev1.EventSource{Component: "agent", Host: "n"},
		ObjectMeta: metav1.ObjectMeta{Name: "e"},
	}
	for _, c := range []struct {
		obj  api.Object
		want []any
	}{
		{d, []any{"hello", "2/3", int64(0), int64(0), "5m", "web", "hello:1", "app=hello"}},
		{node, []any{"n", "Ready,SchedulingDisabled", "server", "2m", "v1", "10.0.0.1", "<none>", "<unknown>", "6.1 (arm64)", "<unknown>"}},
		{event, []any{"8m", "Normal", "Pulled", "pod/p", "", "agent, n", "done", "9m", int64(1), "e"}},
		{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"a": "b"}}, []any{"c", int64(1), "<unknown>"}},
		{&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r", CreationTimestamp: metav1.NewTime(time.Unix(0, 0))}}, []any{"r", "1970-01-01T00:00:00Z"}},
		{&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "b", CreationTimestamp: minutes(2)},
			RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"},
			Subjects: []rbacv1.Subject{
				{Kind: "User", Name: "jane"},
				{Kind: "User", Name: "joe"},
				{Kind: "Group", Name: "ops"},
				{Kind: "ServiceAccount", Namespace: "web", Name: "bot"},
			},
		}, []any{"b", "ClusterRole/view", "2m", "jane, joe", "ops", "web/bot"}},
	} {
		if diff := cmp.Diff(c.want, api.KindFor(c.obj).Row(c.obj, now)); diff != "" {
			t.Error(diff)
		}
	}
}
