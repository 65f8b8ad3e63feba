package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	pdbhelper "k8s.io/component-helpers/apps/poddisruptionbudget"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// deletionTimeout is how long an evicted pod that does not terminate counts as disrupted: upstream's number.
const deletionTimeout = 2 * time.Minute

// addDisruption keeps the status of every PodDisruptionBudget: how many healthy pods there are, should be, and may be evicted. It alone
// raises what may be evicted; the eviction of a pod lowers it.
func (c *Controllers) addDisruption() {
	l := c.newLoop("disruption", 1, c.countDisruptions)
	c.follow(budgets, "", keys(l))
	c.follow(pods, "", each(func(pod *corev1.Pod, _ bool) {
		for _, b := range store.List[policyv1.PodDisruptionBudget](c.reader, pod.Namespace) {
			if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(pod.Labels)) {
				l.add(key(budgets, b.Namespace, b.Name))
			}
		}
	}))
	scaled := reader{changed: func(ch *change) {
		items, _ := c.reader.List(budgets, ch.Item.Key.Namespace)
		for _, item := range items {
			l.add(item.Key)
		}
	}}
	for _, resource := range []string{replicaSets, deployments, statefulSets, replicationControllers} {
		c.follow(resource, "", scaled)
	}
}

func (c *Controllers) countDisruptions(ctx context.Context, k store.Key) (time.Duration, error) {
	var again time.Duration
	_, err := c.client.Modify(ctx, k, "status", func(obj api.Object) error {
		b := obj.(*policyv1.PodDisruptionBudget)
		status, next, err := c.disruptions(b)
		again = next
		if err != nil {
			// An eviction that may do harm is worse than none.
			status = *b.Status.DeepCopy()
			status.DisruptionsAllowed = 0
			meta.SetStatusCondition(&status.Conditions, metav1.Condition{
				Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason,
				Message: err.Error(), ObservedGeneration: status.ObservedGeneration, LastTransitionTime: metav1.NewTime(c.now()),
			})
		}
		if apiequality.Semantic.DeepEqual(status, b.Status) {
			return errKeep
		}
		b.Status = status
		return nil
	})
	if err != nil && !errors.Is(err, errKeep) && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("count the disruptions: %w", err)
	}
	return again, nil
}

// disruptions is what the status of a budget should be, and after which time it should be looked at again.
func (c *Controllers) disruptions(b *policyv1.PodDisruptionBudget) (status policyv1.PodDisruptionBudgetStatus, again time.Duration, err error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return status, 0, err
	}
	var chosen []*corev1.Pod
	for _, pod := range store.List[corev1.Pod](c.reader, b.Namespace) {
		if selector.Matches(labels.Set(pod.Labels)) {
			chosen = append(chosen, pod)
		}
	}
	expected, desired, err := c.expectations(b, chosen)
	if err != nil {
		return status, 0, err
	}
	status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.Generation, ExpectedPods: expected, DesiredHealthy: desired, Conditions: b.DeepCopy().Status.Conditions,
	}
	for _, pod := range chosen {
		since, disrupted := b.Status.DisruptedPods[pod.Name]
		if pod.DeletionTimestamp != nil {
			continue
		}
		if left := since.Add(deletionTimeout).Sub(c.now()); disrupted && left > 0 {
			if status.DisruptedPods == nil {
				status.DisruptedPods = map[string]metav1.Time{}
			}
			status.DisruptedPods[pod.Name] = since
			if again == 0 || left < again {
				again = left
			}
			continue
		}
		if disrupted {
			c.recorder.eventf(pod, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
		}
		if podutil.IsPodReady(pod) {
			status.CurrentHealthy++
		}
	}
	if expected > 0 {
		status.DisruptionsAllowed = max(0, status.CurrentHealthy-desired)
	}
	counted := b.DeepCopy()
	counted.Status = status
	pdbhelper.UpdateDisruptionAllowedCondition(counted)
	return counted.Status, again, nil
}

// expectations is how many pods there should be, and how many of them healthy.
func (c *Controllers) expectations(b *policyv1.PodDisruptionBudget, chosen []*corev1.Pod) (expected, desired int32, err error) {
	least := b.Spec.MinAvailable
	switch {
	case b.Spec.MaxUnavailable != nil:
		if expected, err = c.scaleOf(b, chosen); err != nil {
			return 0, 0, err
		}
		most, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(expected), true)
		return expected, max(0, expected-int32(most)), err
	case least == nil:
		return 0, 0, nil
	case least.Type == intstr.Int:
		return int32(len(chosen)), least.IntVal, nil
	}
	if expected, err = c.scaleOf(b, chosen); err != nil {
		return 0, 0, err
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(least, int(expected), true)
	return expected, int32(n), err
}

// scaleOf adds up what those who own the pods were told to run. Pods that nobody owns do not count.
func (c *Controllers) scaleOf(b *policyv1.PodDisruptionBudget, chosen []*corev1.Pod) (int32, error) {
	scales := map[types.UID]int32{}
	unowned := false
	for _, pod := range chosen {
		owner := metav1.GetControllerOfNoCopy(pod)
		if owner == nil {
			unowned = true
			continue
		}
		uid, scale, ok := c.scaleOfOwner(pod.Namespace, owner)
		if !ok {
			return 0, fmt.Errorf("found no controllers for pod %q", pod.Name)
		}
		scales[uid] = scale
	}
	if unowned {
		c.recorder.eventf(b, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found "+
			"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", b.Spec.Selector)
	}
	var total int32
	for _, n := range scales {
		total += n
	}
	return total, nil
}

// scaleOfOwner finds who scales a pod: its owner, or the owner's owner if that is a deployment.
func (c *Controllers) scaleOfOwner(namespace string, owner *metav1.OwnerReference) (types.UID, int32, bool) {
	switch owner.Kind {
	case "ReplicaSet":
		set, ok := store.Get[appsv1.ReplicaSet](c.reader, namespace, owner.Name)
		if !ok || set.UID != owner.UID {
			return "", 0, false
		}
		if above := metav1.GetControllerOfNoCopy(set); above != nil && above.Kind == "Deployment" {
			d, ok := store.Get[appsv1.Deployment](c.reader, namespace, above.Name)
			if !ok || d.UID != above.UID {
				return "", 0, false
			}
			return d.UID, ptr.Deref(d.Spec.Replicas, 1), true
		}
		return set.UID, ptr.Deref(set.Spec.Replicas, 1), true
	case "StatefulSet":
		set, ok := store.Get[appsv1.StatefulSet](c.reader, namespace, owner.Name)
		if ok && set.UID == owner.UID {
			return set.UID, ptr.Deref(set.Spec.Replicas, 1), true
		}
	case "ReplicationController":
		rc, ok := store.Get[corev1.ReplicationController](c.reader, namespace, owner.Name)
		if ok && rc.UID == owner.UID {
			return rc.UID, ptr.Deref(rc.Spec.Replicas, 1), true
		}
	}
	return "", 0, false
}
