package scheduler

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

// TestNeverOverCapacity places random pods with churn, and checks after each step that no node holds more than it offers,
// that nothing is placed twice on one host port, and that a snapshot built anew, in another order, decides the same.
func TestNeverOverCapacity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSnapshot()
		var nodes []*corev1.Node
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			n := newNode(fmt.Sprintf("n%d", i),
				offer(corev1.ResourceCPU, fmt.Sprintf("%dm", rapid.IntRange(0, 4000).Draw(t, "cpu"))),
				offer(corev1.ResourcePods, fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "places"))),
				offer("shoal.dev/serial", fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "serial"))))
			nodes = append(nodes, n)
			s.SetNode(n)
		}
		var placed []*corev1.Pod
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			if len(placed) > 0 && rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
				at := rapid.IntRange(0, len(placed)-1).Draw(t, "which")
				s.RemovePod(placed[at].UID)
				placed = append(placed[:at], placed[at+1:]...)
			}
			p := drawPod(t, i)
			d := s.Place(p)
			if other := rebuilt(nodes, placed).Place(p); other.Node != d.Node {
				t.Fatalf("a rebuilt snapshot chose %q, the incremental one %q", other.Node, d.Node)
			}
			if d.Node == "" {
				continue
			}
			p.Spec.NodeName = d.Node
			s.SetPod(p)
			placed = append(placed, p)
			checkCapacity(t, nodes, placed)
		}
	})
}

func drawPod(t *rapid.T, i int) *corev1.Pod {
	p := newTestPod(fmt.Sprintf("p%d", i), ask(corev1.ResourceCPU, fmt.Sprintf("%dm", rapid.IntRange(0, 1500).Draw(t, "ask"))))
	if rapid.Bool().Draw(t, "device") {
		ask("shoal.dev/serial", "1")(p)
	}
	if rapid.Bool().Draw(t, "owned") {
		ownedBy("rs")(p)
	}
	if rapid.IntRange(0, 3).Draw(t, "port") == 0 {
		hostPort(80, "")(p)
	}
	return p
}

// rebuilt makes a snapshot from scratch: the nodes backwards, each pod first on another node, as late events would have it.
func rebuilt(nodes []*corev1.Node, placed []*corev1.Pod) *Snapshot {
	s := NewSnapshot()
	for _, p := range placed {
		moved := p.DeepCopy()
		moved.Spec.NodeName = "elsewhere"
		s.SetPod(moved)
		s.SetPod(p)
	}
	for i := range nodes {
		s.SetNode(nodes[len(nodes)-1-i])
	}
	return s
}

func checkCapacity(t *rapid.T, nodes []*corev1.Node, placed []*corev1.Pod) {
	for _, n := range nodes {
		used, ports := map[corev1.ResourceName]int64{}, 0
		for _, p := range placed {
			if p.Spec.NodeName != n.Name {
				continue
			}
			used[corev1.ResourcePods]++
			for name, q := range amounts(p.Spec.Containers[0].Resources.Requests) {
				used[name] += q
			}
			if len(p.Spec.Containers[0].Ports) > 0 {
				ports++
			}
		}
		for name, offered := range amounts(n.Status.Allocatable) {
			if used[name] > offered {
				t.Fatalf("%s offers %d of %s, %d used", n.Name, offered, name, used[name])
			}
		}
		if ports > 1 {
			t.Fatalf("%d pods on one host port of %s", ports, n.Name)
		}
	}
}

// BenchmarkPlace schedules 1,000 pods of 20 owners on 100 nodes: one operation is all of them.
func BenchmarkPlace(b *testing.B) {
	pods := make([]*corev1.Pod, 1000)
	for i := range pods {
		pods[i] = newTestPod(fmt.Sprintf("p%d", i), ask(corev1.ResourceCPU, "100m"), ask(corev1.ResourceMemory, "50Mi"))
		ownedBy(pods[i-i%50].UID)(pods[i])
	}
	b.ReportAllocs()
	for b.Loop() {
		s := NewSnapshot()
		for i := range 100 {
			s.SetNode(newNode(fmt.Sprintf("n%02d", i)))
		}
		for _, p := range pods {
			bound := *p
			if bound.Spec.NodeName = s.Place(p).Node; bound.Spec.NodeName == "" {
				b.Fatal("no room")
			}
			s.SetPod(&bound)
		}
	}
}
