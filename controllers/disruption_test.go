package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func TestDisruptionsAreCounted(t *testing.T) {
	inCluster(t, 2, func(c *cluster) {
		c.create(newDeployment("web", 4))
		c.after(30 * time.Second)
		c.settle()
		selector := c.deployment("web").Spec.Selector
		budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "default"}, Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: ptr.To(intstr.FromString("25%")), Selector: selector,
		}}
		k := store.KeyOf(c.durable, c.create(budget))
		is := func(expected, desired, healthy, allowed int32) policyv1.PodDisruptionBudgetStatus {
			t.Helper()
			c.settle()
			b, _ := store.Get[policyv1.PodDisruptionBudget](c.durable, "default", "b")
			s := b.Status
			if s.ExpectedPods != expected || s.DesiredHealthy != desired || s.CurrentHealthy != healthy || s.DisruptionsAllowed != allowed ||
				s.ObservedGeneration != b.Generation {
				t.Errorf("%+v, want %d %d %d %d", s, expected, desired, healthy, allowed)
			}
			return s
		}
		is(4, 3, 4, 1)
		// An eviction that came to nothing counts for two minutes.
		c.modify(k, "status", func(o api.Object) {
			s := &o.(*policyv1.PodDisruptionBudget).Status
			s.DisruptedPods = map[string]metav1.Time{c.running()[0].Name: metav1.Now()}
			s.DisruptionsAllowed--
		})
		is(4, 3, 3, 0)
		c.after(deletionTimeout)
		if s := is(4, 3, 4, 1); len(s.DisruptedPods) != 0 {
			t.Errorf("%v", s.DisruptedPods)
		}
		c.modify(k, "", func(o api.Object) {
			s := &o.(*policyv1.PodDisruptionBudget).Spec
			s.MaxUnavailable, s.MinAvailable = nil, ptr.To(intstr.FromInt32(2))
		})
		is(4, 2, 4, 2)
		// A pod that nobody scales makes percentages unsure: nothing may be evicted then.
		c.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: "alone", Namespace: "default", Labels: selector.MatchLabels,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "a.b/v1", Kind: "C", Name: "c", UID: "u", Controller: ptr.To(true)}},
		}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
		c.modify(k, "", func(o api.Object) {
			s := &o.(*policyv1.PodDisruptionBudget).Spec
			s.MinAvailable = ptr.To(intstr.FromString("50%"))
		})
		c.settle()
		b, _ := store.Get[policyv1.PodDisruptionBudget](c.durable, "default", "b")
		if b.Status.DisruptionsAllowed != 0 || b.Status.Conditions[0].Reason != policyv1.SyncFailedReason ||
			b.Status.Conditions[0].Message != `found no controllers for pod "alone"` {
			t.Errorf("%+v", b.Status)
		}
	})
}
