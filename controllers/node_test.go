package controllers

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func taintsOf(node *corev1.Node) []string {
	var found []string
	for _, t := range node.Spec.Taints {
		found = append(found, t.Key+":"+string(t.Effect))
	}
	slices.Sort(found)
	return found
}

var unreachable = []string{"node.kubernetes.io/unreachable:NoExecute", "node.kubernetes.io/unreachable:NoSchedule"}

// terminating are the pods of a node that were told to go.
func (c *cluster) terminating(node string) int {
	count := 0
	for _, pod := range store.ListBy[corev1.Pod](c.durable, "node", node) {
		if pod.DeletionTimestamp != nil {
			count++
		}
	}
	return count
}

func TestLostDeviceIsReplacedInTime(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 3))
		c.after(25 * time.Second) // at second 20 every device was heard of
		c.setCut("n1", true)
		c.after(testGrace - 6*time.Second)
		if got := nodeCondition(c.node("n1"), corev1.NodeReady); got != corev1.ConditionTrue {
			t.Fatalf("within the grace, Ready is %s", got)
		}
		c.after(3 * time.Second)
		if got := nodeCondition(c.node("n1"), corev1.NodeReady); got != corev1.ConditionUnknown {
			t.Fatalf("after the grace, Ready is %s", got)
		}
		if got := taintsOf(c.node("n1")); !cmp.Equal(got, unreachable) {
			t.Errorf("taints: %v", got)
		}
		if !cmp.Equal(c.kicked, []string{"n1"}) {
			t.Errorf("kicked: %v", c.kicked)
		}
		if n := len(c.running()); n != 2 {
			t.Errorf("%d pods count as ready, want the 2 that are heard of", n)
		}
		c.after(testReplace - 3*time.Second)
		if n := c.terminating("n1"); n != 0 {
			t.Fatalf("%d pods evicted before their time", n)
		}
		c.after(10 * time.Second)
		if n := len(c.running()); n != 3 || c.terminating("n1") != 1 {
			t.Fatalf("%d pods run, %d on the lost device are to go; want 3 and 1", n, c.terminating("n1"))
		}
		c.setCut("n1", false)
		c.after(5 * time.Second)
		c.mustBeDone("web", 3)
		if got := taintsOf(c.node("n1")); len(got) != 0 {
			t.Errorf("back, it has taints %v", got)
		}
		if n := len(c.pods()); n != 3 {
			t.Errorf("%d pods in the end, want 3", n)
		}
	})
}

func TestShortCutStopsNothing(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 6))
		c.after(5 * time.Second)
		before := names(c.pods())
		c.setCut("n1", true)
		c.after(testGrace + testReplace - 5*time.Second) // unreachable, but not yet evicted
		if got := taintsOf(c.node("n1")); !cmp.Equal(got, unreachable) {
			t.Errorf("taints: %v", got)
		}
		c.setCut("n1", false)
		c.after(time.Hour)
		c.mustBeDone("web", 6)
		if diff := cmp.Diff(before, names(c.pods())); diff != "" {
			t.Errorf("pods changed: %s", diff)
		}
	})
}

func names(pods []*corev1.Pod) []string {
	var found []string
	for _, pod := range pods {
		found = append(found, pod.Name)
	}
	return found
}

func TestNewLeaderEvictsNobodyEarly(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 3))
		c.after(25 * time.Second)
		c.setCut("n1", true)
		c.after(testGrace + testReplace - 10*time.Second)
		c.stepDown()
		c.after(time.Hour) // no leader: the tolerated time runs out many times over
		c.lead()
		c.after(testGrace - 5*time.Second)
		if n := c.terminating("n1"); n != 0 {
			t.Fatal("the new leader evicted before the device had its grace to connect")
		}
		for _, node := range []string{"n0", "n2"} {
			if got := taintsOf(c.node(node)); len(got) != 0 {
				t.Errorf("the new leader tainted %s: %v", node, got)
			}
		}
		c.setCut("n1", false)
		c.after(time.Hour)
		c.mustBeDone("web", 3)
		if n := len(c.pods()); n != 3 {
			t.Errorf("%d pods, want the same 3", n)
		}
		c.setCut("n1", true)
		c.after(testGrace + testReplace + 15*time.Second)
		if n := c.terminating("n1"); n != 1 {
			t.Errorf("%d pods of a device lost under the new leader are evicted, want 1", n)
		}
	})
}

func TestTolerationsDecideWhoStays(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		tolerate := func(name string, seconds *int64) {
			c.create(&corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{{Name: "main", Image: "app"}},
					Tolerations: []corev1.Toleration{{
						Key: "maintenance", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds,
					}},
				},
			})
		}
		tolerate("forever", nil)
		tolerate("minute", ptr.To[int64](60))
		tolerate("hour", ptr.To[int64](3600))
		c.create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "never"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app"}}},
		})
		c.after(5 * time.Second)
		setTaints := func(taints ...corev1.Taint) {
			c.modify(key(nodes, "", "n0"), "", func(o api.Object) { o.(*corev1.Node).Spec.Taints = taints })
		}
		setTaints(corev1.Taint{Key: "maintenance", Effect: corev1.TaintEffectNoExecute, TimeAdded: ptr.To(metav1.Now())})
		c.after(2 * time.Second)
		if got := names(c.pods()); !cmp.Equal(got, []string{"forever", "hour", "minute"}) {
			t.Errorf("at once: %v", got)
		}
		c.after(56 * time.Second)
		if !c.exists(key(pods, "default", "minute")) || c.terminating("n0") != 0 {
			t.Error("evicted before its minute was over")
		}
		c.after(5 * time.Second)
		if got := names(c.pods()); !cmp.Equal(got, []string{"forever", "hour"}) {
			t.Errorf("after a minute: %v", got)
		}
		setTaints()
		c.after(2 * time.Hour)
		if got := names(c.pods()); !cmp.Equal(got, []string{"forever", "hour"}) {
			t.Errorf("the taint went, yet after hours: %v", got)
		}
	})
}

// When most devices fall silent at once the network between them is what failed: their pods stay.
func TestManySilentDevicesAreNotEvicted(t *testing.T) {
	inCluster(t, 5, func(c *cluster) {
		c.create(newDeployment("web", 5))
		c.after(5 * time.Second)
		for _, node := range []string{"n1", "n2", "n3", "n4"} {
			c.setCut(node, true)
		}
		c.after(time.Hour)
		for _, node := range []string{"n1", "n2", "n3", "n4"} {
			if got := taintsOf(c.node(node)); !cmp.Equal(got, unreachable[1:]) || c.terminating(node) != 0 {
				t.Errorf("%s: taints %v, %d pods evicted", node, got, c.terminating(node))
			}
		}
		for _, node := range []string{"n1", "n2", "n3"} {
			c.setCut(node, false)
		}
		c.after(testReplace + 10*time.Second)
		if c.terminating("n4") != 1 {
			t.Error("the one that stays away is not evicted")
		}
	})
}

func TestUnreadyDeviceTakesNoPods(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.modify(key(nodes, "", "n0"), "status", func(o api.Object) {
			o.(*corev1.Node).Status.Conditions[0].Status = corev1.ConditionFalse
		})
		c.modify(key(nodes, "", "n1"), "", func(o api.Object) { o.(*corev1.Node).Spec.Unschedulable = true })
		c.create(newDeployment("web", 1))
		c.after(5 * time.Second)
		pod := c.pods()[0]
		if want := "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."; pod.Status.Conditions[0].Message != want {
			t.Errorf("%+v", pod.Status.Conditions)
		}
		c.modify(key(nodes, "", "n1"), "", func(o api.Object) { o.(*corev1.Node).Spec.Unschedulable = false })
		c.after(5 * time.Second)
		c.mustBeDone("web", 1)
	})
}

func TestAddressBlocks(t *testing.T) {
	inCluster(t, 4, func(c *cluster) {
		var got []string
		for _, node := range store.List[corev1.Node](c.durable, "") {
			got = append(got, node.Spec.PodCIDR)
		}
		slices.Sort(got)
		if want := []string{"10.42.0.0/25", "10.42.0.128/25", "10.42.1.0/25", "10.42.1.128/25"}; !cmp.Equal(got, want) {
			t.Errorf("blocks: %v", got)
		}
		freed := c.node("n1").Spec.PodCIDR
		c.delete(key(nodes, "", "n1"))
		c.after(time.Second)
		c.addDevice("late")
		c.settle()
		if got := c.node("late").Spec.PodCIDR; got != freed {
			t.Errorf("the new node got %s, want the freed %s", got, freed)
		}
	})
}

// TestNoBlockIsFree: who finds the network full is told once, and served when a node has gone.
func TestNoBlockIsFree(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		for i := range 513 {
			c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%03d", i)}})
		}
		c.after(5 * time.Minute)
		lacking := func() (names []string) {
			for _, node := range store.List[corev1.Node](c.durable, "") {
				if node.Spec.PodCIDR == "" {
					names = append(names, node.Name)
				}
			}
			return names
		}
		without := lacking()
		if len(without) != 2 {
			t.Fatalf("%d nodes without a block, want 2", len(without))
		}
		for _, e := range store.List[corev1.Event](c.volatile, "") {
			if e.Reason == "CIDRNotAvailable" && e.Count != 1 {
				t.Errorf("%s is told %d times", e.InvolvedObject.Name, e.Count)
			}
		}
		c.delete(key(nodes, "", "m007"))
		c.after(time.Second)
		if now := lacking(); len(now) != 1 {
			t.Errorf("%d nodes without a block, want 1", len(now))
		}
	})
}

func TestFreeBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		network := netip.MustParsePrefix(rapid.SampledFrom([]string{"10.42.0.0/20", "10.0.0.128/25", "fd00:42::/112"}).Draw(t, "network"))
		bits := network.Bits() + rapid.IntRange(0, 5).Draw(t, "bits")
		var taken []netip.Prefix
		for {
			if len(taken) > 0 && rapid.IntRange(0, 4).Draw(t, "free") == 0 {
				at := rapid.IntRange(0, len(taken)-1).Draw(t, "which")
				taken = slices.Delete(taken, at, at+1)
			}
			block, ok := freeBlocks(network, bits, slices.Clone(taken))()
			if !ok {
				break
			}
			if block.Bits() != bits || !network.Overlaps(block) || block.Masked() != block || slices.ContainsFunc(taken, block.Overlaps) {
				t.Fatalf("%s of %s with %v taken", block, network, taken)
			}
			taken = append(taken, block)
		}
		if len(taken) != 1<<(bits-network.Bits()) {
			t.Fatalf("full after %d blocks of /%d in %s", len(taken), bits, network)
		}
	})
}

func TestPodsOfDeletedNodes(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 3))
		c.after(5 * time.Second)
		c.setCut("n1", true)
		c.delete(key(nodes, "", "n1"))
		c.after(testGrace - 10*time.Second)
		if n := len(c.pods()); n != 3 {
			t.Errorf("%d pods within the grace, want 3", n)
		}
		c.after(20 * time.Second)
		c.mustBeDone("web", 3)
		if n := len(c.pods()); n != 3 {
			t.Errorf("%d pods after the grace, want 3", n)
		}
		if c.exists(key(leases, corev1.NamespaceNodeLease, "n1")) {
			t.Error("the lease of a deleted node is left")
		}
	})
}

func TestPodIsReplacedWhileItTerminates(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 3))
		c.after(5 * time.Second)
		victim := c.pods()[0]
		c.modify(key(pods, "default", victim.Name), "", func(o api.Object) { o.SetFinalizers([]string{"example.com/hold"}) })
		c.delete(key(pods, "default", victim.Name))
		c.after(3 * time.Second)
		if n := len(c.running()); n != 3 {
			t.Errorf("%d pods run, want 3", n)
		}
		if n := len(c.pods()); n != 4 {
			t.Errorf("%d pods, want 3 and the one that terminates", n)
		}
	})
}
