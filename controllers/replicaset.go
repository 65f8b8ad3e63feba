package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

const (
	// maxPodWrites bounds the pods that one reconcile of a replica set makes or deletes; podWritesAtOnce those under way
	// together.
	maxPodWrites    = 500
	podWritesAtOnce = 8
)

// replicaSetLoop keeps as many pods alive as each replica set, or replication controller, asks for. It counts the pods in the store,
// which holds all that it has made, so it never makes one too many.
type replicaSetLoop struct {
	c      *Controllers
	of     replicaKind
	strays strays
}

// replicaKind is what the loop has to know of a kind of replica sets.
type replicaKind struct {
	resource string
	gvk      schema.GroupVersionKind
	get      func(r store.Reader, namespace, name string) (replicas, bool)
	report   func(object api.Object, status appsv1.ReplicaSetStatus)
	// ending is whether the status counts the pods that are on their way out.
	ending bool
}

// replicas is an object that asks for pods, as the replica set that it amounts to.
type replicas struct {
	*appsv1.ReplicaSet
	owner api.Object
}

func replicaSetKind() replicaKind {
	return replicaKind{
		resource: replicaSets, gvk: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), ending: true,
		get: func(r store.Reader, namespace, name string) (replicas, bool) {
			rs, ok := store.Get[appsv1.ReplicaSet](r, namespace, name)
			return replicas{rs, rs}, ok
		},
		report: func(object api.Object, status appsv1.ReplicaSetStatus) { object.(*appsv1.ReplicaSet).Status = status },
	}
}

func (c *Controllers) addReplicaSets() {
	for _, of := range []replicaKind{replicaSetKind(), replicationControllerKind()} {
		c.addReplicas(&replicaSetLoop{c: c, of: of})
	}
}

func (c *Controllers) addReplicas(r *replicaSetLoop) {
	l := c.newLoop(strings.ToLower(r.of.gvk.Kind), 4, r.reconcile)
	c.follow(r.of.resource, "", keys(l))
	c.followPods(l, &r.strays, r.of.gvk.Kind, r.of.resource)
}

// followPods adds an owner of pods to its loop when one of them changes, and those that may adopt a stray.
func (c *Controllers) followPods(l *loop, s *strays, kind, resource string) {
	podReader := s.reader(kind, resource, l, func(namespace string, set map[string]string) { c.addSelecting(l, resource, namespace, set) })
	forget := podReader.relist
	podReader.relist = func() {
		forget()
		c.addAll(l, resource)
	}
	c.follow(pods, "", podReader)
}

// addSelecting adds the objects whose selectors match a stray's labels: deployments, daemon sets, stateful sets, replica sets and replication controllers.
func (c *Controllers) addSelecting(l *loop, resource, namespace string, set map[string]string) {
	if len(set) == 0 {
		return // nothing of ours selects what has no labels
	}
	items, _ := c.reader.List(resource, namespace)
	for _, item := range items {
		object, ok := c.reader.Object(item)
		if !ok {
			continue
		}
		var selector *metav1.LabelSelector
		switch object := object.(type) {
		case *appsv1.ReplicaSet:
			selector = object.Spec.Selector
		case *appsv1.Deployment:
			selector = object.Spec.Selector
		case *appsv1.DaemonSet:
			selector = object.Spec.Selector
		case *appsv1.StatefulSet:
			selector = object.Spec.Selector
		case *corev1.ReplicationController:
			selector = &metav1.LabelSelector{MatchLabels: object.Spec.Selector}
		}
		if s, err := metav1.LabelSelectorAsSelector(selector); err == nil && s.Matches(labels.Set(set)) {
			l.add(item.Key)
		}
	}
}

func (r *replicaSetLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	rs, ok := r.of.get(r.c.reader, k.Namespace, k.Name)
	if !ok {
		return 0, nil // its pods are the garbage collector's
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("selector: %w", err)
	}
	owned, err := claim[corev1.Pod](ctx, r.c, &r.strays, rs.owner, selector)
	if err != nil {
		return 0, err
	}
	var failure error
	if rs.DeletionTimestamp == nil {
		owned, failure = r.manage(ctx, rs, owned)
	}
	again, err := r.report(ctx, rs, owned, failure)
	if err != nil {
		return 0, err
	}
	return again, failure
}

// alive are the pods that count as replicas: a terminating one is replaced at once.
func alive(owned []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(owned), func(p *corev1.Pod) bool {
		return p.DeletionTimestamp != nil || ended(p)
	})
}

// manage makes or deletes pods, and returns those that the replica set has afterwards.
func (r *replicaSetLoop) manage(ctx context.Context, rs replicas, owned []*corev1.Pod) ([]*corev1.Pod, error) {
	present := alive(owned)
	surplus := len(present) - int(*rs.Spec.Replicas)
	switch {
	case surplus < 0:
		made, err := r.makePods(ctx, rs, min(-surplus, maxPodWrites))
		return append(owned, made...), err
	case surplus > 0:
		sortForDeletion(present)
		err := r.c.deletePods(ctx, rs.owner, present[:min(surplus, maxPodWrites)])
		return store.ListBy[corev1.Pod](r.c.reader, store.OwnerIndex, string(rs.UID)), err
	}
	return owned, nil
}

// makePods makes pods in growing batches: where one fails, most of the others would fail too.
func (r *replicaSetLoop) makePods(ctx context.Context, rs replicas, count int) ([]*corev1.Pod, error) {
	made := make([]*corev1.Pod, 0, count)
	for batch := 1; len(made) < count; batch = min(batch*2, podWritesAtOnce) {
		results := make([]*corev1.Pod, min(batch, count-len(made)))
		var group errgroup.Group
		for i := range results {
			group.Go(func() (err error) {
				results[i], err = r.c.makePod(ctx, rs.owner, rs.Spec.Template.DeepCopy())
				return err
			})
		}
		err := group.Wait()
		for _, pod := range results {
			if pod != nil {
				made = append(made, pod)
			}
		}
		if errors.Is(err, errKeep) {
			return made, nil
		}
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// report writes the status, and returns when a pod that is ready will count as available.
func (r *replicaSetLoop) report(ctx context.Context, rs replicas, owned []*corev1.Pod, failure error) (time.Duration, error) {
	status, again := r.status(rs, owned, failure)
	if apiequality.Semantic.DeepEqual(status, rs.Status) {
		return again, nil
	}
	return again, r.c.writeStatus(ctx, rs.owner, func(object api.Object) { r.of.report(object, status) })
}

// writeStatus changes the status of an object, if it is still the same one.
func (c *Controllers) writeStatus(ctx context.Context, of api.Object, change func(api.Object)) error {
	_, err := c.client.Modify(ctx, store.KeyOf(c.reader, of), "status", func(object api.Object) error {
		if object.GetUID() != of.GetUID() {
			return errKeep
		}
		change(object)
		return nil
	})
	if err != nil && !apierrors.IsNotFound(err) && !errors.Is(err, errKeep) {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

func (r *replicaSetLoop) status(rs replicas, owned []*corev1.Pod, failure error) (appsv1.ReplicaSetStatus, time.Duration) {
	status := appsv1.ReplicaSetStatus{ObservedGeneration: rs.Generation, Conditions: slices.Clone(rs.Status.Conditions)}
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	var w wakeUp
	for _, pod := range alive(owned) {
		status.Replicas++
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		if _, ready := readySince(pod); ready {
			status.ReadyReplicas++
		}
		if w.available(pod, rs.Spec.MinReadySeconds, r.c.now()) {
			status.AvailableReplicas++
		}
	}
	terminating := int32(0)
	for _, pod := range owned {
		if pod.DeletionTimestamp != nil && !ended(pod) {
			terminating++
		}
	}
	if r.of.ending {
		status.TerminatingReplicas = &terminating
	}
	status.Conditions = withFailure(status.Conditions, failure, metav1.NewTime(r.c.now()))
	return status, w.again
}

func withFailure(conditions []appsv1.ReplicaSetCondition, failure error, now metav1.Time) []appsv1.ReplicaSetCondition {
	at := slices.IndexFunc(conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case failure == nil && at >= 0:
		return slices.Delete(conditions, at, at+1)
	case failure != nil && at < 0:
		return append(conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, LastTransitionTime: now,
			Reason: "FailedCreate", Message: failure.Error(),
		})
	}
	return conditions
}
