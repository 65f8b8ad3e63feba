package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func newDaemonSet(change ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	set := map[string]string{"app": "probe"}
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "probe"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: set},
			Template: newTemplate(set, "probe:1"),
		},
	}
	for _, f := range change {
		f(ds)
	}
	return ds
}

func (c *cluster) daemonSet() *appsv1.DaemonSet {
	c.Helper()
	ds, ok := store.Get[appsv1.DaemonSet](c.durable, "default", "probe")
	if !ok {
		c.Fatal("the daemon set is gone")
	}
	return ds
}

func (c *cluster) changeDaemonSet(f func(*appsv1.DaemonSet)) {
	c.Helper()
	c.modify(key(daemonSets, "default", "probe"), "", func(o api.Object) { f(o.(*appsv1.DaemonSet)) })
}

func (c *cluster) changeNode(name string, f func(*corev1.Node)) {
	c.Helper()
	c.modify(key(nodes, "", name), "", func(o api.Object) { f(o.(*corev1.Node)) })
}

// where tells which image runs on which node.
func (c *cluster) where() string {
	at := map[string]string{}
	for _, pod := range c.running() {
		at[pod.Spec.NodeName] += strings.TrimPrefix(pod.Spec.Containers[0].Image, "probe:")
	}
	var all []string
	for _, node := range slices.Sorted(maps.Keys(at)) {
		all = append(all, node+"="+at[node])
	}
	return strings.Join(all, " ")
}

func (c *cluster) mustBe(want string) {
	c.Helper()
	if diff := cmp.Diff(want, c.where()); diff != "" {
		c.Error(diff)
	}
}

func TestDaemonSetRunsOnEveryNode(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.create(newDaemonSet())
		c.after(3 * time.Second)
		c.mustBe("n0=1 n1=1")
		c.addDevice("n2")
		c.after(3 * time.Second)
		c.mustBe("n0=1 n1=1 n2=1")
		// A node that is cordoned keeps its pod, and gets one back that is lost; a taint of its own keeps new ones away, or all.
		c.changeNode("n0", func(n *corev1.Node) { n.Spec.Unschedulable = true })
		c.delete(store.KeyOf(c.durable, c.running()[0]))
		c.after(5 * time.Second)
		c.mustBe("n0=1 n1=1 n2=1")
		c.changeNode("n1", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "line", Value: "4", Effect: corev1.TaintEffectNoSchedule}}
		})
		c.changeNode("n2", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "line", Value: "4", Effect: corev1.TaintEffectNoExecute}}
		})
		c.after(5 * time.Second)
		c.mustBe("n0=1 n1=1")
		s := c.daemonSet().Status
		want := appsv1.DaemonSetStatus{
			DesiredNumberScheduled: 1, CurrentNumberScheduled: 1, NumberMisscheduled: 1, NumberReady: 1, NumberAvailable: 1, UpdatedNumberScheduled: 1,
			ObservedGeneration: s.ObservedGeneration,
		}
		if diff := cmp.Diff(want, s); diff != "" {
			t.Error(diff)
		}
		c.delete(key(daemonSets, "default", "probe"), metav1.DeletePropagationBackground)
		c.after(5 * time.Second)
		c.mustBe("")
	})
}

func TestDaemonSetChoosesNodes(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = map[string]string{"camera": "yes"} }))
		c.after(3 * time.Second)
		c.mustBe("")
		c.changeNode("n1", func(n *corev1.Node) { n.Labels["camera"] = "yes" })
		c.after(3 * time.Second)
		c.mustBe("n1=1")
		c.changeNode("n1", func(n *corev1.Node) { delete(n.Labels, "camera") })
		c.after(3 * time.Second)
		c.mustBe("")
	})
}

func TestDaemonSetUpdates(t *testing.T) {
	inCluster(t, 5, func(c *cluster) {
		c.create(newDaemonSet(func(ds *appsv1.DaemonSet) {
			ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt32(2))}
		}))
		c.after(3 * time.Second)
		end := c.bounds(5, 3)
		c.changeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "probe:2" })
		c.after(20 * time.Second)
		end()
		c.mustBe("n0=2 n1=2 n2=2 n3=2 n4=2")
		if s := c.daemonSet().Status; s.UpdatedNumberScheduled != 5 || s.NumberAvailable != 5 {
			t.Errorf("%+v", s)
		}
		// A template that never becomes ready replaces no more than may be missing, and the old one can be had back.
		c.mu.Lock()
		c.notRead = func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image == "probe:3" }
		c.mu.Unlock()
		c.changeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "probe:3" })
		c.after(time.Minute)
		if got := strings.Count(c.where(), "=2"); got != 3 {
			t.Errorf("%d of the old are left: %s", got, c.where())
		}
		c.changeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "probe:2" })
		c.after(20 * time.Second)
		c.mustBe("n0=2 n1=2 n2=2 n3=2 n4=2")
		var numbers []string
		for _, r := range store.List[appsv1.ControllerRevision](c.durable, "default") {
			var image string
			for _, known := range []string{"probe:1", "probe:2", "probe:3"} {
				if strings.Contains(string(r.Data.Raw), known) {
					image = known
				}
			}
			numbers = append(numbers, fmt.Sprint(image, " ", r.Revision))
		}
		slices.Sort(numbers)
		if diff := cmp.Diff([]string{"probe:1 1", "probe:2 4", "probe:3 3"}, numbers); diff != "" {
			t.Error(diff)
		}
	})
}

// everywhere is a daemon set that tolerates whatever ails a device, as those of networks and hardware do.
func everywhere(ds *appsv1.DaemonSet) {
	ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
}

// A device that is away for days must not hold up the others, and gets what it missed when it is back.
func TestDaemonSetUpdatesAroundWhoIsAway(t *testing.T) {
	for _, change := range []func(*appsv1.DaemonSet){func(*appsv1.DaemonSet) {}, everywhere} {
		aroundWhoIsAway(t, change)
	}
}

func aroundWhoIsAway(t *testing.T, change func(*appsv1.DaemonSet)) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDaemonSet(change))
		c.after(3 * time.Second)
		c.setCut("n1", true)
		c.after(time.Minute)
		c.changeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "probe:2" })
		c.after(30 * time.Second)
		if got := c.where(); !strings.Contains(got, "n0=2") || !strings.Contains(got, "n2=2") {
			t.Error(got)
		}
		c.setCut("n1", false)
		c.after(30 * time.Second)
		c.mustBe("n0=2 n1=2 n2=2")
	})
}

// A pod that does not run is replaced at once, but it is one of those that may be missing: no other one goes for it.
func TestDaemonSetUpdateCountsWhatIsBroken(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDaemonSet())
		c.after(3 * time.Second)
		broken := c.running()[0]
		c.mu.Lock()
		c.notRead = func(p *corev1.Pod) bool { return p.UID == broken.UID || p.Spec.Containers[0].Image == "probe:2" }
		c.mu.Unlock()
		c.modify(store.KeyOf(c.durable, broken), "status", func(o api.Object) {
			setPodCondition(&o.(*corev1.Pod).Status, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse})
		})
		end := c.bounds(3, 2)
		c.changeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "probe:2" })
		c.after(30 * time.Second)
		end()
		if all := c.pods(); len(c.running()) != 2 || len(all) != 3 {
			t.Errorf("%d pods, of which %d run: %s", len(all), len(c.running()), c.where())
		}
	})
}

func TestDaemonSetSurges(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDaemonSet(func(ds *appsv1.DaemonSet) {
			ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{
				MaxUnavailable: ptr.To(intstr.FromInt32(0)), MaxSurge: ptr.To(intstr.FromInt32(1)),
			}
		}))
		c.after(3 * time.Second)
		end := c.bounds(4, 3)
		c.changeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "probe:2" })
		c.after(30 * time.Second)
		end()
		c.mustBe("n0=2 n1=2 n2=2")
	})
}

func TestDaemonSetOnDelete(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.create(newDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType }))
		c.after(3 * time.Second)
		c.changeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "probe:2" })
		c.after(30 * time.Second)
		c.mustBe("n0=1 n1=1")
		for _, pod := range c.running() {
			if pod.Spec.NodeName == "n1" {
				c.delete(store.KeyOf(c.durable, pod))
			}
		}
		c.after(5 * time.Second)
		c.mustBe("n0=1 n1=2")
	})
}

// A pod that a device refuses is made again, but not over and over.
func TestDaemonSetReplacesWhatFailed(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		c.create(newDaemonSet())
		c.after(3 * time.Second)
		first := c.running()[0]
		c.modify(store.KeyOf(c.durable, first), "status", func(o api.Object) { o.(*corev1.Pod).Status.Phase = corev1.PodFailed })
		c.after(10 * time.Second)
		if all := c.pods(); len(all) != 1 || all[0].UID != first.UID {
			t.Errorf("%d pods after ten seconds", len(all))
		}
		c.after(30 * time.Second)
		if now := c.running(); len(now) != 1 || now[0].UID == first.UID || now[0].Status.Phase != corev1.PodRunning {
			t.Errorf("%d pods", len(now))
		}
	})
}
