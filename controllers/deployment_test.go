package controllers

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// bounds watches all pods from now on and checks, event by event, that never more are alive and never fewer available than
// allowed. The result ends the check and returns the extremes seen.
func (c *cluster) bounds(most, fewest int) (end func()) {
	items, _, w := c.durable.ListAndWatch(pods, "")
	all := map[store.Key]*corev1.Pod{}
	take := func(item store.Item) {
		object, _ := c.durable.Object(item)
		all[item.Key] = object.(*corev1.Pod)
	}
	for _, item := range items {
		take(item)
	}
	stopped := make(chan struct{})
	c.wg.Go(func() {
		defer close(stopped)
		for {
			batch, err := w.Next(c.ctx)
			if err != nil {
				return
			}
			for _, event := range batch {
				if event.Type == store.Deleted {
					delete(all, event.Item.Key)
				} else {
					take(event.Item)
				}
				replicas := alive(slices.Collect(maps.Values(all)))
				usable := 0
				for _, pod := range replicas {
					if _, ready := readySince(pod); ready {
						usable++
					}
				}
				if len(replicas) > most || usable < fewest {
					c.Errorf("revision %d: %d alive (at most %d), %d available (at least %d)",
						event.Item.Revision, len(replicas), most, usable, fewest)
				}
			}
		}
	})
	return func() {
		w.Close()
		<-stopped
	}
}

func TestDeploymentRollsOut(t *testing.T) {
	inCluster(t, 5, func(c *cluster) {
		c.create(newDeployment("web", 6))
		c.after(5 * time.Second)
		c.mustBeDone("web", 6)
		perNode := map[string]int{}
		for _, pod := range c.running() {
			perNode[pod.Spec.NodeName]++
		}
		if got := slices.Sorted(maps.Values(perNode)); !cmp.Equal(got, []int{1, 1, 1, 1, 2}) {
			t.Errorf("replicas per node: %v", perNode)
		}
		if got := c.deployment("web").Annotations[revisionAnnotation]; got != "1" {
			t.Errorf("revision %q", got)
		}
		generation := c.durable.Revision()
		c.after(time.Hour)
		if now := c.durable.Revision(); now != generation {
			t.Errorf("an idle cluster wrote %d times in an hour", now-generation)
		}
	})
}

func TestRollingUpdateKeepsItsBounds(t *testing.T) {
	cases := []struct {
		surge, unavailable intstr.IntOrString
		most, fewest       int
	}{
		{intstr.FromString("25%"), intstr.FromString("25%"), 8, 5},
		{intstr.FromInt32(0), intstr.FromInt32(1), 6, 5},
		{intstr.FromInt32(1), intstr.FromInt32(0), 7, 6},
		{intstr.FromString("100%"), intstr.FromInt32(0), 12, 6},
		{intstr.FromInt32(2), intstr.FromInt32(3), 8, 3},
	}
	for _, k := range cases {
		t.Run(fmt.Sprintf("%s-%s", k.surge.String(), k.unavailable.String()), func(t *testing.T) {
			inCluster(t, 5, func(c *cluster) {
				c.create(newDeployment("web", 6, func(d *appsv1.Deployment) {
					d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &k.surge, MaxUnavailable: &k.unavailable}
				}))
				c.after(5 * time.Second)
				end := c.bounds(k.most, k.fewest)
				c.setImage("web", "app:2")
				c.after(time.Minute)
				c.mustBeDone("web", 6)
				c.setImage("web", "app:1") // what `kubectl rollout undo` does
				c.after(time.Minute)
				c.mustBeDone("web", 6)
				end()
				sets := store.List[appsv1.ReplicaSet](c.durable, "default")
				if len(sets) != 2 {
					t.Fatalf("%d replica sets, want the two templates'", len(sets))
				}
				for _, set := range sets {
					image, revision := set.Spec.Template.Spec.Containers[0].Image, set.Annotations[revisionAnnotation]
					if want := map[string]string{"app:1": "3", "app:2": "2"}[image]; revision != want {
						t.Errorf("revision of %s is %s, want %s", image, revision, want)
					}
				}
				if got := c.deployment("web").Annotations[revisionAnnotation]; got != "3" {
					t.Errorf("revision of the deployment: %s", got)
				}
			})
		})
	}
}

func TestBrokenUpdateStopsAndIsTold(t *testing.T) {
	inCluster(t, 5, func(c *cluster) {
		c.create(newDeployment("web", 6, func(d *appsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = ptr.To[int32](60) }))
		c.after(time.Hour) // an old rollout's clock must not count against a new one
		end := c.bounds(8, 5)
		c.mu.Lock()
		c.notRead = func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image == "broken" }
		c.mu.Unlock()
		c.setImage("web", "broken")
		c.after(50 * time.Second)
		progressing := func() string {
			for _, condition := range c.deployment("web").Status.Conditions {
				if condition.Type == appsv1.DeploymentProgressing {
					return condition.Reason
				}
			}
			return ""
		}
		if got := progressing(); got != "ReplicaSetUpdated" {
			t.Errorf("before the deadline: %s", got)
		}
		c.after(30 * time.Second)
		if got := progressing(); got != reasonDeadline {
			t.Errorf("after the deadline: %s", got)
		}
		if n := len(c.running()); n != 5 {
			t.Errorf("%d pods of the old version go on running, want 5", n)
		}
		c.setImage("web", "app:1")
		c.after(time.Minute)
		c.mustBeDone("web", 6)
		end()
	})
}

// A rollout is judged by its own time and its own pods: not by the time of the one before, nor by what fails later.
func TestProgressIsJudgedFairly(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 3, func(d *appsv1.Deployment) {
			d.Spec.ProgressDeadlineSeconds = ptr.To[int32](60)
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(0))}
		}))
		c.after(time.Hour)
		c.setImage("web", "app:2")
		c.after(time.Hour)
		_, _, w := c.durable.ListAndWatch(deployments, "")
		c.setImage("web", "app:1")
		c.after(time.Hour)
		c.mustBeDone("web", 3)
		for _, pod := range c.pods() {
			c.modify(key(pods, "default", pod.Name), "status", func(o api.Object) {
				o.(*corev1.Pod).Status.Conditions = nil
			})
		}
		c.mu.Lock()
		c.notRead = func(*corev1.Pod) bool { return true }
		c.mu.Unlock()
		c.after(time.Hour)
		batch, err := w.Next(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		for _, event := range batch {
			object, _ := c.durable.Object(event.Item)
			for _, condition := range object.(*appsv1.Deployment).Status.Conditions {
				if condition.Type == appsv1.DeploymentProgressing && condition.Status != corev1.ConditionTrue {
					t.Errorf("revision %d: %s", event.Item.Revision, condition.Reason)
				}
			}
		}
	})
}

func TestRecreateNeverMixes(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("db", 3, func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType }))
		c.after(5 * time.Second)
		_, _, w := c.durable.ListAndWatch(pods, "")
		c.setImage("db", "app:2")
		c.after(time.Minute)
		c.mustBeDone("db", 3)
		batch, err := w.Next(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		gone := 0
		for _, event := range batch {
			object, _ := c.durable.Object(event.Item)
			switch image := object.(*corev1.Pod).Spec.Containers[0].Image; {
			case event.Type == store.Deleted && image == "app:1":
				gone++
			case event.Type == store.Added && gone < 3:
				t.Errorf("a new pod after %d of 3 old ones had gone", gone)
			}
		}
		w.Close()
	})
}

func TestPauseAndResume(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		pause := func(paused bool) {
			c.modify(key(deployments, "default", "web"), "", func(o api.Object) { o.(*appsv1.Deployment).Spec.Paused = paused })
		}
		c.create(newDeployment("web", 3))
		c.after(5 * time.Second)
		pause(true)
		c.setImage("web", "app:2")
		c.resize("web", 5)
		c.after(time.Hour)
		for _, pod := range c.pods() {
			if image := pod.Spec.Containers[0].Image; image != "app:1" {
				t.Errorf("a paused deployment runs %s", image)
			}
		}
		if n := len(c.running()); n != 5 {
			t.Errorf("a paused deployment scaled to %d, want 5", n)
		}
		pause(false)
		c.after(time.Minute)
		c.mustBeDone("web", 5)
		if image := c.pods()[0].Spec.Containers[0].Image; image != "app:2" {
			t.Errorf("resumed, it runs %s", image)
		}
	})
}

func TestResizeInMidRolloutKeepsProportions(t *testing.T) {
	inCluster(t, 5, func(c *cluster) {
		c.mu.Lock()
		c.notRead = func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image == "broken" }
		c.mu.Unlock()
		c.create(newDeployment("web", 8))
		c.after(5 * time.Second)
		c.setImage("web", "broken") // stops at 6 old, 4 new
		c.after(5 * time.Second)
		c.resize("web", 16)
		c.after(5 * time.Second)
		old, fresh := 0, 0
		for _, pod := range alive(c.pods()) {
			if pod.Spec.Containers[0].Image == "broken" {
				fresh++
			} else {
				old++
			}
		}
		if old != 12 || fresh != 8 {
			t.Errorf("%d old and %d new pods, want 12 and 8", old, fresh)
		}
		c.setImage("web", "app:1")
		c.after(time.Minute)
		c.mustBeDone("web", 16)
	})
}

// Shares are rounded to the nearest, as upstream's are.
func TestResizeRoundsShares(t *testing.T) {
	inCluster(t, 5, func(c *cluster) {
		c.mu.Lock()
		c.notRead = func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image == "broken" }
		c.mu.Unlock()
		c.create(newDeployment("web", 10, func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: ptr.To(intstr.FromInt32(3)), MaxUnavailable: ptr.To(intstr.FromInt32(2))}
		}))
		c.after(5 * time.Second)
		c.setImage("web", "broken") // stops at 8 old, 5 new
		c.after(5 * time.Second)
		c.resize("web", 30)
		c.after(5 * time.Second)
		fresh := 0
		for _, pod := range alive(c.pods()) {
			if pod.Spec.Containers[0].Image == "broken" {
				fresh++
			}
		}
		if n := len(alive(c.pods())); n != 33 || fresh != 13 {
			t.Errorf("%d pods, %d of them new; want 33 and 13", n, fresh)
		}
	})
}

func TestHistoryIsTrimmed(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newDeployment("web", 2, func(d *appsv1.Deployment) { d.Spec.RevisionHistoryLimit = ptr.To[int32](2) }))
		for i := range 5 {
			c.after(time.Minute)
			c.setImage("web", fmt.Sprintf("app:%d", i+2))
		}
		c.after(time.Minute)
		c.mustBeDone("web", 2)
		var revisions []string
		for _, set := range store.List[appsv1.ReplicaSet](c.durable, "default") {
			revisions = append(revisions, set.Annotations[revisionAnnotation])
		}
		slices.Sort(revisions)
		if want := []string{"4", "5", "6"}; !cmp.Equal(revisions, want) {
			t.Errorf("revisions kept: %v, want %v", revisions, want)
		}
	})
}
