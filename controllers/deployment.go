package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// deploymentLoop moves each deployment's pods to its newest template by way of replica sets, one for each template.
type deploymentLoop struct {
	c      *Controllers
	loop   *loop
	strays strays
}

func (c *Controllers) addDeployments() {
	d := &deploymentLoop{c: c}
	d.loop = c.newLoop("deployment", 2, d.reconcile)
	c.follow(deployments, "", keys(d.loop))
	setReader := d.strays.reader("Deployment", deployments, d.loop, func(namespace string, set map[string]string) {
		c.addSelecting(d.loop, deployments, namespace, set)
	})
	forget := setReader.relist
	setReader.relist = func() {
		forget()
		c.addAll(d.loop, deployments)
	}
	c.follow(replicaSets, "", setReader)
	c.follow(pods, "", reader{changed: d.podGone})
}

// podGone wakes a deployment that recreates its pods: it waits for the last old one to go.
func (d *deploymentLoop) podGone(ch *change) {
	if !ch.deleted() {
		return
	}
	owner := metav1.GetControllerOfNoCopy(ch.metadata())
	if owner == nil || owner.Kind != "ReplicaSet" {
		return
	}
	item, ok := d.c.reader.Get(key(replicaSets, ch.Item.Key.Namespace, owner.Name))
	if !ok {
		return
	}
	if owner := metav1.GetControllerOfNoCopy(metaOf(item.Value)); owner != nil && owner.Kind == "Deployment" {
		d.loop.add(key(deployments, ch.Item.Key.Namespace, owner.Name))
	}
}

// rollout is one look at one deployment: what it asks for and what there is. Its steps keep it true as they change things.
type rollout struct {
	d      *deploymentLoop
	object *appsv1.Deployment
	sets   []*appsv1.ReplicaSet // oldest first
	newest *appsv1.ReplicaSet   // the one of the present template; nil if there is none yet
	status appsv1.DeploymentStatus
}

func (d *deploymentLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	object, ok := store.Get[appsv1.Deployment](d.c.reader, k.Namespace, k.Name)
	if !ok {
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(object.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("selector: %w", err)
	}
	sets, err := claim[appsv1.ReplicaSet](ctx, d.c, &d.strays, object, selector)
	if err != nil {
		return 0, err
	}
	slices.SortFunc(sets, olderSet)
	r := &rollout{d: d, object: object, sets: sets, status: *object.Status.DeepCopy()}
	r.newest = r.find()
	if object.DeletionTimestamp != nil {
		return r.report(ctx, true)
	}
	return r.advance(ctx)
}

func olderSet(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// advance takes the next step of the rollout.
func (r *rollout) advance(ctx context.Context) (time.Duration, error) {
	r.notePause()
	if r.object.Spec.Paused || r.resized() {
		// A rollout that is under way when the size changes keeps its proportions, and goes on from there.
		if err := r.recordRevision(ctx); err != nil {
			return 0, err
		}
		if err := r.resize(ctx); err != nil {
			return 0, err
		}
		if r.object.Spec.Paused {
			if err := r.trimHistory(ctx); err != nil {
				return 0, err
			}
		}
		return r.report(ctx, true)
	}
	step := r.roll
	if r.object.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		step = r.recreate
	}
	if err := step(ctx); err != nil {
		return 0, r.noteFailure(ctx, err)
	}
	again, err := r.report(ctx, r.rests())
	if err == nil && r.complete() {
		err = r.trimHistory(ctx)
	}
	return again, err
}

// old are the replica sets of former templates.
func (r *rollout) old() []*appsv1.ReplicaSet {
	return slices.DeleteFunc(slices.Clone(r.sets), func(s *appsv1.ReplicaSet) bool { return r.newest != nil && s.UID == r.newest.UID })
}

func (r *rollout) replicas() int32 { return ptr.Deref(r.object.Spec.Replicas, 1) }

// roll brings up new pods and takes down old ones, within what the strategy allows.
func (r *rollout) roll(ctx context.Context) error {
	if err := r.ensureNewest(ctx); err != nil {
		return err
	}
	if want := r.newSize(); want != size(r.newest) {
		return r.scale(ctx, r.newest, want)
	}
	if err := r.refillOld(ctx); err != nil {
		return err
	}
	return r.shrinkOld(ctx)
}

// recreate takes all old pods down and waits until the last one is gone before it makes new ones.
func (r *rollout) recreate(ctx context.Context) error {
	waiting := false
	for _, set := range r.old() {
		if size(set) > 0 {
			if err := r.scale(ctx, set, 0); err != nil {
				return err
			}
		}
		for _, pod := range store.ListBy[corev1.Pod](r.d.c.reader, store.OwnerIndex, string(set.UID)) {
			waiting = waiting || !ended(pod)
		}
	}
	if waiting {
		return nil
	}
	if err := r.ensureNewest(ctx); err != nil {
		return err
	}
	return r.scale(ctx, r.newest, r.replicas())
}

// size is how many pods a replica set asks for.
func size(set *appsv1.ReplicaSet) int32 { return ptr.Deref(set.Spec.Replicas, 1) }

// held is how many pods a replica set may have at this moment: it keeps those that it was told to give up until it has
// heard of it.
func held(set *appsv1.ReplicaSet) int32 { return max(size(set), set.Status.Replicas) }

// available is how many pods of a replica set are available and stay so.
func available(set *appsv1.ReplicaSet) int32 { return min(size(set), set.Status.AvailableReplicas) }

// newSize is the size that the newest replica set may have now.
func (r *rollout) newSize() int32 {
	want, have := r.limit(), size(r.newest)
	if have >= want {
		return want
	}
	surge, _ := r.bounds()
	total := int32(0)
	for _, set := range r.sets {
		total += held(set)
	}
	room := r.replicas() + surge - total
	return have + max(0, min(room, want-have))
}

// shrinkOld takes old pods down: first those that do not work, which nobody misses, then as many as others can stand in for.
func (r *rollout) shrinkOld(ctx context.Context) error {
	_, unavailable := r.bounds()
	minimum := r.replicas() - unavailable
	total, usable := int32(0), int32(0)
	for _, set := range r.sets {
		total += size(set)
		usable += available(set)
	}
	spare := min(total-minimum-(size(r.newest)-available(r.newest)), r.oldSize()-r.kept())
	for _, set := range r.old() {
		broken := size(set) - available(set)
		if take := min(broken, spare); take > 0 {
			if err := r.scale(ctx, set, size(set)-take); err != nil {
				return err
			}
			spare -= take
		}
	}
	spare = min(spare, usable-minimum, r.oldSize()-r.kept())
	for _, set := range r.old() {
		if take := min(size(set), spare); take > 0 {
			if err := r.scale(ctx, set, size(set)-take); err != nil {
				return err
			}
			spare -= take
		}
	}
	return nil
}

// bounds are how many pods the strategy allows above the size and unavailable below it.
func (r *rollout) bounds() (surge, unavailable int32) {
	return strategyBounds(r.object)
}

// scale sets a replica set's size, and what the deployment asked for when it did.
func (r *rollout) scale(ctx context.Context, set *appsv1.ReplicaSet, want int32) error {
	have := size(set)
	updated, err := r.d.c.client.Modify(ctx, key(replicaSets, set.Namespace, set.Name), "", func(object api.Object) error {
		current := object.(*appsv1.ReplicaSet)
		if current.UID != set.UID {
			return errKeep
		}
		current.Spec.Replicas = &want
		r.annotateSizes(current)
		return nil
	})
	if apierrors.IsNotFound(err) || errors.Is(err, errKeep) {
		return nil // gone: the next look will see
	}
	if err != nil {
		return fmt.Errorf("scale %s to %d: %w", set.Name, want, err)
	}
	r.replace(updated.(*appsv1.ReplicaSet))
	if want != have {
		verb := "up"
		if want < have {
			verb = "down"
		}
		r.d.c.recorder.eventf(r.object, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d",
			verb, set.Name, have, want)
	}
	return nil
}

// replace puts a new version of a replica set in the place of the old one.
func (r *rollout) replace(set *appsv1.ReplicaSet) {
	for i := range r.sets {
		if r.sets[i].UID == set.UID {
			r.sets[i] = set
		}
	}
	if r.newest != nil && r.newest.UID == set.UID {
		r.newest = set
	}
}
