package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/store"
)

func newStatefulSet(replicas int32, change ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	set := map[string]string{"app": "db"}
	s := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: set},
			Template: newTemplate(set, "app:1"),
		},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func (c *cluster) changeSet(f func(*appsv1.StatefulSet)) {
	c.Helper()
	c.modify(key(statefulSets, "default", "db"), "", func(o api.Object) { f(o.(*appsv1.StatefulSet)) })
}

func (c *cluster) setStatus() appsv1.StatefulSetStatus {
	c.Helper()
	s, ok := store.Get[appsv1.StatefulSet](c.durable, "default", "db")
	if !ok {
		c.Fatal("the set is gone")
	}
	return s.Status
}

// ordinals tells which image the pods have, by their names.
func (c *cluster) ordinals() string {
	var all []string
	for _, pod := range c.pods() {
		text := strings.TrimPrefix(pod.Name, "db-") + "=" + strings.TrimPrefix(pod.Spec.Containers[0].Image, "app:")
		if _, ready := readySince(pod); !ready {
			text += "?"
		}
		if pod.DeletionTimestamp != nil {
			text += "!"
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (c *cluster) mustHave(want string) {
	c.Helper()
	if diff := cmp.Diff(want, c.ordinals()); diff != "" {
		c.Error(diff)
	}
}

func setImage(image string) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = image }
}

func TestStatefulSetKeepsAnOrder(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newStatefulSet(3, func(s *appsv1.StatefulSet) {
			s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("none"), // nobody binds it: the pods wait
					Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
				},
			}}
			s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
			}
		}))
		c.after(5 * time.Second)
		c.mustHave("0=1?")
		claim, ok := store.Get[corev1.PersistentVolumeClaim](c.durable, "default", "data-db-0")
		if pod := c.pods()[0]; !ok || claim.Labels["app"] != "db" || pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-db-0" ||
			pod.Spec.Hostname != "db-0" || pod.Spec.Subdomain != "db" || pod.Labels["apps.kubernetes.io/pod-index"] != "0" {
			t.Errorf("%v, %+v", claim, pod)
		}
		c.changeSet(func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To[int32](0) })
		c.after(5 * time.Second)
		c.mustHave("")
		if c.exists(key("persistentvolumeclaims", "default", "data-db-0")) {
			t.Error("the claim is left")
		}
	})
	inCluster(t, 3, func(c *cluster) {
		c.create(newStatefulSet(3))
		c.after(1500 * time.Millisecond)
		c.mustHave("0=1 1=1?")
		c.after(5 * time.Second)
		c.mustHave("0=1 1=1 2=1")
		c.changeSet(func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To[int32](1) })
		c.after(500 * time.Millisecond)
		c.mustHave("0=1 1=1 2=1!")
		c.after(5 * time.Second)
		c.mustHave("0=1")
		c.delete(key(pods, "default", "db-0"))
		c.after(5 * time.Second)
		c.mustHave("0=1")
		s := c.setStatus()
		want := appsv1.StatefulSetStatus{
			Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1, CurrentReplicas: 1, UpdatedReplicas: 1,
			ObservedGeneration: s.ObservedGeneration, CurrentRevision: s.CurrentRevision, UpdateRevision: s.CurrentRevision,
		}
		if diff := cmp.Diff(want, s); diff != "" {
			t.Error(diff)
		}
	})
}

func TestStatefulSetUpdates(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newStatefulSet(4, func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }))
		c.after(1500 * time.Millisecond)
		c.mustHave("0=1 1=1 2=1 3=1")
		end := c.bounds(4, 3)
		c.changeSet(func(s *appsv1.StatefulSet) {
			setImage("app:2")(s)
			s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](2)}
		})
		c.after(20 * time.Second)
		c.mustHave("0=1 1=1 2=2 3=2")
		c.delete(key(pods, "default", "db-1"))
		c.after(5 * time.Second)
		c.mustHave("0=1 1=1 2=2 3=2") // below the partition the former template stays
		c.changeSet(func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](0) })
		c.after(20 * time.Second)
		end()
		c.mustHave("0=2 1=2 2=2 3=2")
		if s := c.setStatus(); s.CurrentRevision != s.UpdateRevision || s.CurrentReplicas != 4 {
			t.Errorf("%+v", s)
		}
	})
}

// A template that does not run is stopped at its first pod, and taken back without anybody's hands.
func TestStatefulSetComesBackFromABadTemplate(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.notRead = func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image == "app:2" }
		c.create(newStatefulSet(3))
		c.after(10 * time.Second)
		c.changeSet(setImage("app:2"))
		c.after(time.Minute)
		c.mustHave("0=1 1=1 2=2?")
		c.changeSet(setImage("app:1"))
		c.after(20 * time.Second)
		c.mustHave("0=1 1=1 2=1")
	})
}

// A set in order gets no smaller past a pod that is not ready: its peers may still need the ones before it.
func TestStatefulSetStopsAtWhatIsSick(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newStatefulSet(3))
		c.after(10 * time.Second)
		c.setCut("n0", true)
		c.setCut("n1", true)
		c.setCut("n2", true)
		c.after(2 * time.Minute) // all are taken for not ready
		c.changeSet(func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To[int32](0) })
		c.after(time.Minute)
		if got := c.ordinals(); strings.Contains(got, "2=1?!") || strings.Contains(got, "1=1?!") {
			t.Error(got)
		}
		for _, node := range []string{"n0", "n1", "n2"} {
			c.setCut(node, false)
		}
		c.after(time.Minute)
		c.mustHave("")
	})
}

// A pod that a device refuses is made again, but not over and over.
func TestStatefulSetReplacesWhatFailed(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		c.create(newStatefulSet(1))
		c.after(3 * time.Second)
		first := c.pods()[0]
		c.modify(store.KeyOf(c.durable, first), "status", func(o api.Object) { o.(*corev1.Pod).Status.Phase = corev1.PodFailed })
		c.after(10 * time.Second)
		if all := c.pods(); len(all) != 1 || all[0].UID != first.UID {
			t.Errorf("%d pods after ten seconds", len(all))
		}
		c.after(30 * time.Second)
		if all := c.pods(); len(all) != 1 || all[0].UID == first.UID || all[0].Status.Phase != corev1.PodRunning {
			t.Errorf("%d pods", len(all))
		}
	})
}

// A pod of a device that is away is not made again elsewhere: it may still be running there.
func TestStatefulSetNeverRunsAPodTwice(t *testing.T) {
	inCluster(t, 3, func(c *cluster) {
		c.create(newStatefulSet(1))
		c.after(5 * time.Second)
		node := c.pods()[0].Spec.NodeName
		c.setCut(node, true)
		c.after(time.Hour)
		if all := c.pods(); len(all) != 1 || all[0].Spec.NodeName != node {
			t.Errorf("%d pods", len(all))
		}
		c.setCut(node, false)
		c.after(time.Minute)
		c.mustHave("0=1")
	})
}

func TestStatefulSetInWaves(t *testing.T) {
	inCluster(t, 5, func(c *cluster) {
		c.create(newStatefulSet(10))
		c.after(time.Minute)
		c.release("StatefulSet", "db")
		c.after(time.Minute)
		c.mustStand(fleetv1.Soaking, 0, 1)
		c.mustHave("0=1 1=1 2=1 3=1 4=1 5=1 6=1 7=1 8=1 9=2")
		c.after(2 * time.Minute)
		c.mustStand(fleetv1.Soaking, 1, 3)
		c.after(4 * time.Minute)
		c.mustStand(fleetv1.Completed, 2, 10)
		s, _ := store.Get[appsv1.StatefulSet](c.durable, "default", "db")
		if hold := s.Annotations[fleetv1.HoldAnnotation]; hold != "" {
			t.Error(fmt.Sprint(hold))
		}
	})
}
