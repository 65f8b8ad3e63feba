package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/api/devices"
)

func newNode(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("110"),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, f := range change {
		f(n)
	}
	return n
}

func newTestPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func label(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { metav1.SetMetaDataLabel(&p.ObjectMeta, key, value) }
}

func ask(name corev1.ResourceName, quantity string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		requests := &p.Spec.Containers[0].Resources.Requests
		if *requests == nil {
			*requests = corev1.ResourceList{}
		}
		(*requests)[name] = resource.MustParse(quantity)
	}
}

func ownedBy(uid types.UID) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{UID: uid, Controller: &yes}}
	}
}

func offer(name corev1.ResourceName, quantity string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Status.Allocatable[name] = resource.MustParse(quantity) }
}

func nodeLabel(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[key] = value }
}

func taint(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func away(selector map[string]string, key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: selector},
			}},
		}}
	}
}

func near(selector map[string]string, key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: selector},
			}},
		}}
	}
}

func hostPort(number int32, ip string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: number, HostIP: ip}}
	}
}

// adapters are serial adapters with these serial numbers.
func adapters(serials ...string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		var list []devices.Device
		for i, serial := range serials {
			list = append(list, devices.Device{Resource: "shoal.dev/serial", Name: strconv.Itoa(i), Attributes: map[string]string{"usb-serial": serial}})
		}
		n.Annotations = map[string]string{devices.Annotation: devices.Encode(list)}
	}
}

// machine is a serial port to each of these machines.
func machine(names ...string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		var list []devices.Device
		for _, name := range names {
			list = append(list, devices.Device{Resource: "shoal.dev/serial", Name: name, Attributes: map[string]string{devices.Machine: name}})
		}
		n.Annotations = map[string]string{devices.Annotation: devices.Encode(list)}
	}
}

func wants(match string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{"devices.shoal.dev/serial": match} }
}

func TestPlace(t *testing.T) {
	const serial = corev1.ResourceName("shoal.dev/serial")
	cases := []struct {
		name  string
		nodes []*corev1.Node
		pods  []*corev1.Pod
		pod   *corev1.Pod
		want  string // node, or the explanation
	}{
		{name: "no nodes", pod: newTestPod("p"), want: "no nodes available to schedule pods"},
		{
			name:  "only device with the hardware",
			nodes: []*corev1.Node{newNode("a"), newNode("b", offer(serial, "1")), newNode("c")},
			pod:   newTestPod("p", ask(serial, "1")), want: "b",
		},
		{
			name: "hardware taken", nodes: []*corev1.Node{newNode("a"), newNode("b", offer(serial, "1"))},
			pods: []*corev1.Pod{newTestPod("q", ask(serial, "1"), on("b"))},
			pod:  newTestPod("p", ask(serial, "1")), want: "0/2 nodes are available: 2 Insufficient shoal.dev/serial.",
		},
		{
			name:  "only device with the right hardware",
			nodes: []*corev1.Node{newNode("a", offer(serial, "2"), adapters("a")), newNode("b", offer(serial, "1"), adapters("b")), newNode("c", offer(serial, "1"))},
			pod:   newTestPod("p", ask(serial, "1"), wants("usb-serial=b")), want: "b",
		},
		{
			name:  "right hardware nowhere",
			nodes: []*corev1.Node{newNode("a", offer(serial, "1"), adapters("a")), newNode("b")},
			pod:   newTestPod("p", ask(serial, "1"), wants("usb-serial=x")),
			want:  "0/2 nodes are available: 1 Insufficient shoal.dev/serial, 1 node(s) had no shoal.dev/serial with usb-serial=x.",
		},
		{
			name:  "right hardware taken",
			nodes: []*corev1.Node{newNode("a", offer(serial, "3"), adapters("a", "a", "b"))},
			pods:  []*corev1.Pod{newTestPod("q", ask(serial, "1"), wants("usb-serial=a"), on("a"))},
			pod:   newTestPod("p", ask(serial, "2"), wants("usb-serial=a")),
			want:  "0/1 nodes are available: 1 node(s) had no free shoal.dev/serial with usb-serial=a.",
		},
		{
			name:  "machine driven from another node",
			nodes: []*corev1.Node{newNode("a", offer(serial, "1"), machine("press")), newNode("b", offer(serial, "1"), machine("press"))},
			pods:  []*corev1.Pod{newTestPod("q", ask(serial, "1"), on("a"), func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} })},
			pod:   newTestPod("p", ask(serial, "1")),
			want:  "0/2 nodes are available: 1 Insufficient shoal.dev/serial, 1 node(s) share machine press with a node whose pod may drive it.",
		},
		{
			name:  "machine driven from another node, another one free",
			nodes: []*corev1.Node{newNode("a", offer(serial, "1"), machine("press")), newNode("b", offer(serial, "2"), machine("press", "saw"))},
			pods:  []*corev1.Pod{newTestPod("q", ask(serial, "1"), on("a"))},
			pod:   newTestPod("p", ask(serial, "1")), want: "b",
		},
		{
			name:  "machine that another pod cannot have",
			nodes: []*corev1.Node{newNode("a", offer(serial, "2"), machine("press", "saw")), newNode("b", offer(serial, "1"), machine("press"))},
			pods:  []*corev1.Pod{newTestPod("q", ask(serial, "2"), wants("machine=saw"), on("a"))},
			pod:   newTestPod("p", ask(serial, "1")), want: "b",
		},
		{
			name:  "machine that is not at the other node any more",
			nodes: []*corev1.Node{newNode("a"), newNode("b", offer(serial, "1"), machine("press"))},
			pods:  []*corev1.Pod{newTestPod("q", ask(serial, "1"), on("a"))},
			pod:   newTestPod("p", ask(serial, "1")), want: "b",
		},
		{
			name: "wish that makes no sense", nodes: []*corev1.Node{newNode("a", offer(serial, "1"), adapters("a"))},
			pod:  newTestPod("p", ask(serial, "1"), wants("usb")),
			want: `0/1 nodes are available: 1 node(s) could not read the pod's annotation devices.shoal.dev/serial: "usb" must be attribute=value, separated by commas.`,
		},
		{
			name: "hardware freed by a finished pod", nodes: []*corev1.Node{newNode("b", offer(serial, "1"))},
			pods: []*corev1.Pod{newTestPod("q", ask(serial, "1"), on("b"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })},
			pod:  newTestPod("p", ask(serial, "1")), want: "b",
		},
		{
			name: "explained",
			nodes: []*corev1.Node{
				newNode("a"), newNode("b"), newNode("c", taint("x", corev1.TaintEffectNoSchedule)),
				newNode("d", taint("x", corev1.TaintEffectNoExecute)), newNode("e", func(n *corev1.Node) { n.Spec.Unschedulable = true }),
			},
			pod:  newTestPod("p", ask(corev1.ResourceCPU, "3"), ask(corev1.ResourceMemory, "2Gi")),
			want: "0/5 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu, 2 Insufficient memory, 2 node(s) had untolerated taint(s).",
		},
		{
			name: "init container's request counts", nodes: []*corev1.Node{newNode("a")},
			pod: newTestPod("p", func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")},
				}}}
			}), want: "0/1 nodes are available: 1 Insufficient cpu.",
		},
		{
			name: "too many pods", nodes: []*corev1.Node{newNode("a", offer(corev1.ResourcePods, "1"))},
			pods: []*corev1.Pod{newTestPod("q", on("a"))}, pod: newTestPod("p"), want: "0/1 nodes are available: 1 Too many pods.",
		},
		{
			name: "toleration", nodes: []*corev1.Node{newNode("a", taint("x", corev1.TaintEffectNoSchedule))},
			pod: newTestPod("p", func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "x", Operator: corev1.TolerationOpExists}}
			}), want: "a",
		},
		{
			name:  "not ready yet, not tainted yet",
			nodes: []*corev1.Node{newNode("a", func(n *corev1.Node) { n.Status.Conditions = nil })},
			pod:   newTestPod("p"), want: "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
		},
		{
			name: "node selector", nodes: []*corev1.Node{newNode("a"), newNode("b", nodeLabel("disk", "ssd"))},
			pod: newTestPod("p", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), want: "b",
		},
		{
			name: "node selector of nobody", nodes: []*corev1.Node{newNode("a")},
			pod:  newTestPod("p", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }),
			want: "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
		},
		{
			name: "preferred node", nodes: []*corev1.Node{newNode("a"), newNode("b", nodeLabel("disk", "ssd"))},
			pods: []*corev1.Pod{newTestPod("q", on("b"), ownedBy("rs"))},
			pod: newTestPod("p", ownedBy("rs"), func(p *corev1.Pod) {
				p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
					PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: corev1.NodeSelectorTerm{
						MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}},
					}}},
				}}
			}), want: "b",
		},
		{
			name: "prefer no schedule", nodes: []*corev1.Node{newNode("a", taint("x", corev1.TaintEffectPreferNoSchedule)), newNode("b")},
			pods: []*corev1.Pod{newTestPod("q", on("b"), ownedBy("rs"))}, pod: newTestPod("p", ownedBy("rs")), want: "b",
		},
		{
			name: "host port taken", nodes: []*corev1.Node{newNode("a"), newNode("b")},
			pods: []*corev1.Pod{newTestPod("q", hostPort(80, ""), on("a"))}, pod: newTestPod("p", hostPort(80, "10.0.0.1")), want: "b",
		},
		{
			name: "host port on another address", nodes: []*corev1.Node{newNode("a")},
			pods: []*corev1.Pod{newTestPod("q", hostPort(80, "10.0.0.2"), on("a"))}, pod: newTestPod("p", hostPort(80, "10.0.0.1")), want: "a",
		},
		{
			name: "anti-affinity", nodes: []*corev1.Node{newNode("a"), newNode("b")},
			pods: []*corev1.Pod{newTestPod("q", on("a"), label("app", "db"))},
			pod:  newTestPod("p", away(map[string]string{"app": "db"}, corev1.LabelHostname)), want: "b",
		},
		{
			name: "anti-affinity of those already there", nodes: []*corev1.Node{newNode("a")},
			pods: []*corev1.Pod{newTestPod("q", on("a"), away(map[string]string{"app": "web"}, corev1.LabelHostname))},
			pod:  newTestPod("p", label("app", "web")),
			want: "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
		},
		{
			name: "anti-affinity stays in its namespace", nodes: []*corev1.Node{newNode("a")},
			pods: []*corev1.Pod{newTestPod("q", on("a"), away(map[string]string{"app": "web"}, corev1.LabelHostname))},
			pod:  newTestPod("p", label("app", "web"), func(p *corev1.Pod) { p.Namespace = "other" }), want: "a",
		},
		{
			name: "affinity", nodes: []*corev1.Node{newNode("a", nodeLabel("zone", "1")), newNode("b", nodeLabel("zone", "2")), newNode("c", nodeLabel("zone", "2"))},
			pods: []*corev1.Pod{newTestPod("q", on("b"), label("app", "db"), ask(corev1.ResourceCPU, "1500m"))},
			pod:  newTestPod("p", near(map[string]string{"app": "db"}, "zone"), ask(corev1.ResourceCPU, "1")), want: "c",
		},
		{
			name: "affinity to nobody", nodes: []*corev1.Node{newNode("a")}, pod: newTestPod("p", near(map[string]string{"app": "db"}, corev1.LabelHostname)),
			want: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
		},
		{
			name: "first of a group near itself", nodes: []*corev1.Node{newNode("a")},
			pod: newTestPod("p", label("app", "db"), near(map[string]string{"app": "db"}, corev1.LabelHostname)), want: "a",
		},
		{
			name: "topology spread", nodes: []*corev1.Node{newNode("a", nodeLabel("zone", "1")), newNode("b", nodeLabel("zone", "2"), offer(corev1.ResourceCPU, "0"))},
			pods: []*corev1.Pod{newTestPod("q", on("a"), label("app", "web"))},
			pod: newTestPod("p", label("app", "web"), ask(corev1.ResourceCPU, "1"), func(p *corev1.Pod) {
				p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
					MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule,
					LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				}}
			}), want: "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints.",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := NewSnapshot()
			for _, p := range c.pods { // before the nodes: the order of events must not matter
				s.SetPod(p)
			}
			for _, n := range c.nodes {
				s.SetNode(n)
			}
			d := s.Place(c.pod)
			got := d.Node
			if got == "" {
				got = d.Explain()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestReplicasSpread(t *testing.T) {
	s := NewSnapshot()
	for i := range 5 {
		s.SetNode(newNode(fmt.Sprintf("n%d", i)))
	}
	// One device is busy, and one is nearly idle: the replicas spread all the same.
	s.SetPod(newTestPod("busy", on("n0"), ask(corev1.ResourceCPU, "1500m"), ask(corev1.ResourceMemory, "700Mi")))
	counts := map[string]int{}
	for i := range 6 {
		p := newTestPod(fmt.Sprintf("p%d", i), ownedBy("rs"), ask(corev1.ResourceCPU, "50m"))
		p.Spec.NodeName = s.Place(p).Node
		counts[p.Spec.NodeName]++
		s.SetPod(p)
	}
	if got := slices.Sorted(maps.Values(counts)); !cmp.Equal(got, []int{1, 1, 1, 1, 2}) {
		t.Errorf("replicas per node: %v (%v)", got, counts)
	}
	if counts["n0"] != 1 {
		t.Errorf("the busy device got %d replicas, want 1", counts["n0"])
	}
}

func TestSnapshotTellsWhatMatters(t *testing.T) {
	s := NewSnapshot()
	n := newNode("a")
	if !s.SetNode(n) {
		t.Error("a new node matters")
	}
	heard := n.DeepCopy()
	heard.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
	heard.ResourceVersion = "7"
	if s.SetNode(heard) {
		t.Error("a heartbeat does not matter")
	}
	if !s.SetNode(newNode("a", taint("x", corev1.TaintEffectNoSchedule))) {
		t.Error("a taint matters")
	}
	p := newTestPod("p", on("a"))
	s.SetPod(p)
	s.RemoveNode("a")
	if d := s.Place(newTestPod("q")); d.Node != "" {
		t.Errorf("placed on a removed node: %q", d.Node)
	}
	if !s.RemovePod(p.UID) || s.RemovePod(p.UID) {
		t.Error("a pod takes room until it is removed, once")
	}
	if len(s.nodes) != 0 || len(s.homes) != 0 {
		t.Errorf("left behind: %v %v", s.nodes, s.homes)
	}
}
