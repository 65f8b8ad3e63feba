package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/store"
)

// TestDisconnect: when pods of a device that falls silent are given up, by what they say of it.
func TestDisconnect(t *testing.T) {
	const away = 2 * time.Hour
	for policy, c := range map[string]struct {
		after time.Duration // at the earliest; zero: never
	}{
		"": {after: testGrace + testReplace}, "keep": {}, "replace": {after: testGrace}, "nonsense": {},
		// 20 minutes, its grace, and what lies between two clocks and two devices.
		"stop-after=20m": {after: testGrace + 20*time.Minute + 5*time.Second + 10*time.Second + 12*time.Second},
		"stop-after=24h": {},
	} {
		t.Run(policy, func(t *testing.T) {
			inCluster(t, 2, func(c2 *cluster) {
				pod := &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Annotations: map[string]string{}},
					Spec: corev1.PodSpec{
						NodeName: "n0", TerminationGracePeriodSeconds: ptr.To[int64](5), Containers: []corev1.Container{{Name: "main", Image: "app:1"}},
					},
				}
				if policy != "" {
					pod.Annotations[fleetv1.DisconnectAnnotation] = policy
				}
				c2.create(pod)
				c2.after(time.Minute)
				cut := time.Now()
				c2.setCut("n0", true)
				given := func() bool {
					p, ok := store.Get[corev1.Pod](c2.durable, "default", "p")
					return !ok || p.DeletionTimestamp != nil
				}
				for !given() && time.Since(cut) < away {
					c2.after(time.Second)
				}
				took := time.Since(cut)
				switch {
				case c.after == 0 && given():
					t.Errorf("it was given up after %s, and never should be", took)
				case c.after != 0 && (!given() || took < c.after-2*heartbeat || took > c.after+2*heartbeat):
					t.Errorf("given up: %t, after %s; want %s", given(), took, c.after)
				}
			})
		})
	}
}

// TestFenceIsCountedByEachLeader: a leader whose clock is ahead, or who has just begun, does not shorten what the device counts on.
func TestFenceIsCountedByEachLeader(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Annotations: map[string]string{fleetv1.DisconnectAnnotation: "stop-after=20m"}},
			Spec: corev1.PodSpec{
				NodeName: "n0", TerminationGracePeriodSeconds: ptr.To[int64](5), Containers: []corev1.Container{{Name: "main", Image: "app:1"}},
			},
		})
		c.after(time.Minute)
		c.setCut("n0", true)
		c.after(10 * time.Minute)
		c.modify(key(nodes, "", "n0"), "", func(o api.Object) { // as it looks to a leader whose clock is ten years ahead
			for i := range o.(*corev1.Node).Spec.Taints {
				o.(*corev1.Node).Spec.Taints[i].TimeAdded = &metav1.Time{Time: time.Now().Add(-10 * 365 * 24 * time.Hour)}
			}
		})
		c.stepDown()
		c.lead()
		c.after(19 * time.Minute)
		if p, ok := store.Get[corev1.Pod](c.durable, "default", "p"); !ok || p.DeletionTimestamp != nil {
			t.Error("it was given up before its device must have ended it")
		}
		c.after(5 * time.Minute)
		if p, ok := store.Get[corev1.Pod](c.durable, "default", "p"); ok && p.DeletionTimestamp == nil {
			t.Error("it was never given up")
		}
	})
}
