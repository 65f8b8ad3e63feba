package controllers

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// ordinalPlan is what a stateful set wants to be done, from what there is. It is a function of its input.
type ordinalPlan struct {
	set             *appsv1.StatefulSet
	current, update string // the revisions that pods had, and are to have
	now             time.Time
	start           int
	slots           []*corev1.Pod // by ordinal, from start; nil where there is none
	beyond          []*corev1.Pod // one too many, the highest ordinal first

	make   []ordinalMake
	remove []*corev1.Pod
	wakeUp
}

// ordinalMake is a pod to be made, of the former template or of the newest.
type ordinalMake struct {
	ordinal int
	former  bool
}

func newOrdinalPlan(set *appsv1.StatefulSet, current, update string, owned []*corev1.Pod, now time.Time) *ordinalPlan {
	p := &ordinalPlan{set: set, current: current, update: update, now: now, slots: make([]*corev1.Pod, replicasOf(set))}
	if o := set.Spec.Ordinals; o != nil {
		p.start = int(o.Start)
	}
	ordinals := map[*corev1.Pod]int{}
	for _, pod := range owned {
		n, ok := ordinalOf(set, pod)
		if ordinals[pod] = n; !ok {
			continue // it only looks like one of ours
		}
		if i := n - p.start; i >= 0 && i < len(p.slots) {
			p.slots[i] = pod
		} else {
			p.beyond = append(p.beyond, pod)
		}
	}
	slices.SortFunc(p.beyond, func(a, b *corev1.Pod) int { return cmp.Compare(ordinals[b], ordinals[a]) })
	return p
}

// partition is how many of the lowest ordinals keep the former template: what the set says, and what a rollout in waves does.
func (p *ordinalPlan) partition() int {
	n := 0
	if u := p.set.Spec.UpdateStrategy.RollingUpdate; u != nil {
		n = int(ptr.Deref(u.Partition, 0))
	}
	hold, err := fleetv1.ReadHold(p.set.Annotations)
	switch {
	case err != nil: // somebody has meddled with it: nothing goes further than it is
		return len(p.slots)
	case hold != nil:
		n = max(n, len(p.slots)-int(hold.Pods))
	}
	return n
}

// rolls reports whether the set replaces its pods by itself.
func (p *ordinalPlan) rolls() bool {
	return p.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType
}

// decide says which pods are to be made and to go. A set that keeps an order does one thing at a time.
func (p *ordinalPlan) decide() {
	ordered := p.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	for i, pod := range p.slots {
		if p.settle(i, pod) && ordered {
			return
		}
	}
	sick := p.firstSick()
	for _, pod := range p.beyond {
		if pod.DeletionTimestamp == nil && (!ordered || pod == sick || p.available(pod)) {
			p.remove = append(p.remove, pod)
		}
		if ordered {
			return
		}
	}
	if p.rolls() {
		p.roll()
	}
}

// firstSick is the pod with the lowest ordinal of those that are not available; nil if all are. A set that keeps an order gets no smaller beyond it, as with
// upstream.
func (p *ordinalPlan) firstSick() *corev1.Pod {
	beyond := slices.Clone(p.beyond)
	slices.Reverse(beyond)
	for _, pod := range slices.Concat(p.slots, beyond) {
		if pod != nil && !p.available(pod) {
			return pod
		}
	}
	return nil
}

// settle sees to it that a slot has a pod that runs. It reports whether there is something to wait for.
//
// A pod that does not run, and is of a template that never was all pods' and is not to be, is replaced at once: upstream's waits for it, for ever if need be.
func (p *ordinalPlan) settle(i int, pod *corev1.Pod) (wait bool) {
	former := p.rolls() && i < p.partition()
	switch {
	case pod == nil:
		p.make = append(p.make, ordinalMake{p.start + i, former})
	case pod.DeletionTimestamp != nil:
	case ended(pod):
		if p.mayGo(pod, p.now) {
			p.remove = append(p.remove, pod)
		}
	case p.available(pod):
		return false
	case p.rolls() && !isOf(pod, p.current) && !isOf(pod, p.update):
		p.remove = append(p.remove, pod)
	}
	return true
}

// roll replaces pods of another revision, the highest ordinal first, as many at a time as may be missing.
func (p *ordinalPlan) roll() {
	missing := 1
	if u := p.set.Spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxUnavailable != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, len(p.slots), true); err == nil {
			missing = max(1, n)
		}
	}
	for _, pod := range p.slots {
		if pod == nil || pod.DeletionTimestamp != nil || !p.available(pod) {
			missing--
		}
	}
	for i := len(p.slots) - 1; i >= 0 && missing > 0; i-- {
		pod := p.slots[i]
		if pod == nil || pod.DeletionTimestamp != nil || i < p.partition() || isOf(pod, p.update) || slices.Contains(p.remove, pod) {
			continue
		}
		p.remove = append(p.remove, pod)
		missing--
	}
}

func (p *ordinalPlan) available(pod *corev1.Pod) bool {
	return p.wakeUp.available(pod, p.set.Spec.MinReadySeconds, p.now)
}

func (p *ordinalPlan) status() appsv1.StatefulSetStatus {
	s := appsv1.StatefulSetStatus{
		ObservedGeneration: p.set.Generation, CurrentRevision: p.current, UpdateRevision: p.update,
		CollisionCount: p.set.Status.CollisionCount, Conditions: p.set.Status.Conditions,
	}
	done := true
	for _, pod := range slices.Concat(p.slots, p.beyond) {
		if pod == nil {
			done = false
			continue
		}
		s.Replicas++
		available := false
		if _, ready := readySince(pod); ready {
			s.ReadyReplicas++
			if available = p.available(pod); available {
				s.AvailableReplicas++
			}
		}
		if pod.DeletionTimestamp != nil {
			done = false
			continue
		}
		if isOf(pod, p.current) {
			s.CurrentReplicas++
		}
		if isOf(pod, p.update) {
			s.UpdatedReplicas++
		} else {
			done = false
		}
		done = done && available
	}
	if done && p.rolls() && len(p.beyond) == 0 {
		s.CurrentRevision, s.CurrentReplicas = p.update, s.UpdatedReplicas
	}
	return s
}
