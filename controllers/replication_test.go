package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// A replication controller makes pods, replaces one that goes, adopts strays, lets go of what its selector does not match, and scales.
func TestReplicationControllers(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "stray", Labels: map[string]string{"app": "web"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app"}}},
		})
		c.after(10 * time.Second)
		c.create(&corev1.ReplicationController{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ReplicationControllerSpec{Replicas: ptr.To[int32](3), Template: &corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "app"}}},
			}},
		})
		c.after(10 * time.Second)
		status := func() corev1.ReplicationControllerStatus {
			rc, _ := store.Get[corev1.ReplicationController](c.durable, "default", "web")
			return rc.Status
		}
		want := corev1.ReplicationControllerStatus{
			Replicas: 3, FullyLabeledReplicas: 3, ReadyReplicas: 3, AvailableReplicas: 3, ObservedGeneration: 1,
		}
		if diff := cmp.Diff(want, status()); diff != "" {
			t.Fatal(diff)
		}
		for _, p := range c.pods() {
			if owner := metav1.GetControllerOf(p); owner == nil || owner.Kind != "ReplicationController" || owner.APIVersion != "v1" {
				t.Errorf("pod %s is owned by %v", p.Name, owner)
			}
		}
		k := key(replicationControllers, "default", "web")
		quiet, _ := c.durable.Get(k)
		c.addDevice("n9")
		c.after(10 * time.Second)
		if now, _ := c.durable.Get(k); now.Revision != quiet.Revision {
			t.Error("it is written though nothing of it has changed")
		}
		c.modify(key(pods, "default", "stray"), "", func(o api.Object) { o.SetLabels(map[string]string{"app": "other"}) })
		c.after(10 * time.Second)
		if got := len(c.pods()); got != 4 {
			t.Errorf("%d pods after one has left", got)
		}
		c.modify(k, "", func(o api.Object) { o.(*corev1.ReplicationController).Spec.Replicas = ptr.To[int32](1) })
		c.after(10 * time.Second)
		if got := status(); got.Replicas != 1 || got.ObservedGeneration != 2 {
			t.Errorf("scaled down: %+v", got)
		}
	})
}
