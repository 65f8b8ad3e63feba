package controllers

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// limit is how many pods of the newest template the deployment may have now. A rollout in waves (kind Rollout) holds it below the
// deployment's size; the other pods keep the template that they have.
func (r *rollout) limit() int32 {
	hold, err := fleetv1.ReadHold(r.object.Annotations)
	switch {
	case err != nil: // somebody has meddled with it: nothing goes further than it is
		if r.newest != nil {
			return min(size(r.newest), r.replicas())
		}
		return 0
	case hold == nil:
		return r.replicas()
	}
	return max(0, min(hold.Pods, r.replicas()))
}

// rests: the deployment is as far as the wave lets it go, and waits for the next one.
func (r *rollout) rests() bool {
	limit := r.limit()
	return limit < r.replicas() && (r.newest == nil && limit == 0 || r.newest != nil && available(r.newest) == limit)
}

// kept is how many pods of former templates the deployment has to keep.
func (r *rollout) kept() int32 { return r.replicas() - r.limit() }

func (r *rollout) oldSize() int32 {
	total := int32(0)
	for _, set := range r.old() {
		total += size(set)
	}
	return total
}

// refillOld gives pods of the last former template back to a deployment that has fewer than it has to keep, as after a change of its size.
func (r *rollout) refillOld(ctx context.Context) error {
	short := r.kept() - r.oldSize()
	if short <= 0 {
		return nil
	}
	var last *appsv1.ReplicaSet
	for _, set := range r.old() {
		if last == nil || revision(set) > revision(last) {
			last = set
		}
	}
	if last == nil {
		return nil // there was never anything else
	}
	return r.scale(ctx, last, size(last)+short)
}
