package controllers

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Annotations of a replica set: the deployment's size, and the most pods that its strategy allows, when it was last scaled.
const (
	desiredAnnotation = "deployment.kubernetes.io/desired-replicas"
	maximumAnnotation = "deployment.kubernetes.io/max-replicas"
)

// strategyBounds are how many pods a deployment's strategy allows above its size and unavailable below it. One of them is
// at least one, or nothing could ever move.
func strategyBounds(d *appsv1.Deployment) (surge, unavailable int32) {
	rolling := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || rolling == nil {
		return 0, 0
	}
	replicas := *d.Spec.Replicas
	if replicas == 0 {
		return 0, 0
	}
	surge = scaled(rolling.MaxSurge, replicas, true)
	unavailable = scaled(rolling.MaxUnavailable, replicas, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, replicas)
}

func scaled(value *intstr.IntOrString, of int32, roundUp bool) int32 {
	if value == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(value, int(of), roundUp)
	if err != nil {
		return 0 // validation lets nothing else through
	}
	return int32(n)
}

func (r *rollout) annotateSizes(set *appsv1.ReplicaSet) {
	surge, _ := r.bounds()
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	set.Annotations[desiredAnnotation] = strconv.Itoa(int(r.replicas()))
	set.Annotations[maximumAnnotation] = strconv.Itoa(int(r.replicas() + surge))
}

// resized reports whether the deployment's size changed since its pods were last scaled.
func (r *rollout) resized() bool {
	active := r.active()
	if len(active) > 1 && r.object.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false // there are no proportions to keep
	}
	for _, set := range active {
		if desired, err := strconv.Atoi(set.Annotations[desiredAnnotation]); err == nil && int32(desired) != r.replicas() {
			return true
		}
	}
	return false
}

// active are the replica sets that ask for pods.
func (r *rollout) active() []*appsv1.ReplicaSet {
	return slices.DeleteFunc(slices.Clone(r.sets), func(s *appsv1.ReplicaSet) bool { return size(s) == 0 })
}

// resize follows a change of the deployment's size without moving the rollout on.
func (r *rollout) resize(ctx context.Context) error {
	active := r.active()
	switch {
	case len(active) == 1:
		return r.scale(ctx, active[0], r.replicas())
	case len(active) == 0 && r.newest != nil:
		return r.scale(ctx, r.newest, r.replicas())
	case len(active) == 0 && len(r.sets) > 0:
		return r.scale(ctx, r.sets[len(r.sets)-1], r.replicas())
	case len(active) == 0:
		return nil
	}
	if r.newest != nil && size(r.newest) == r.replicas() && available(r.newest) == r.replicas() {
		for _, set := range r.old() {
			if size(set) > 0 {
				if err := r.scale(ctx, set, 0); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return r.resizeAll(ctx, active)
}

// resizeAll shares the new size among the replica sets as the old one was, rounded to the nearest, the largest first; what is left then goes
// there too. That is upstream's arithmetic.
func (r *rollout) resizeAll(ctx context.Context, active []*appsv1.ReplicaSet) error {
	slices.SortStableFunc(active, func(a, b *appsv1.ReplicaSet) int { return cmp.Or(cmp.Compare(size(b), size(a)), olderSet(b, a)) })
	surge, _ := r.bounds()
	total, goal := int32(0), r.replicas()
	for _, set := range active {
		total += size(set)
	}
	if goal > 0 {
		goal += surge
	}
	wants := make([]int32, len(active))
	left := goal - total
	for i, set := range active {
		more := int32(math.Round(float64(size(set))*float64(goal)/float64(total))) - size(set)
		if left > 0 {
			more = min(more, left)
		} else {
			more = max(more, left)
		}
		wants[i] = size(set) + more
		left -= more
	}
	wants[0] = max(0, wants[0]+left)
	for i, set := range active {
		if err := r.scale(ctx, set, wants[i]); err != nil {
			return err
		}
	}
	return nil
}
