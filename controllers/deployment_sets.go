package controllers

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/store"
)

// Annotations that number the templates of a deployment.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
)

// ownAnnotations belong to a deployment, or to a replica set, alone; all others are copied from the one to the other.
var ownAnnotations = []string{
	corev1.LastAppliedConfigAnnotation, revisionAnnotation, historyAnnotation, desiredAnnotation, maximumAnnotation, fleetv1.HoldAnnotation,
}

// find returns the replica set of the deployment's template: the oldest, should there be several.
func (r *rollout) find() *appsv1.ReplicaSet {
	for _, set := range r.sets {
		if sameTemplate(&set.Spec.Template, &r.object.Spec.Template) {
			return set
		}
	}
	return nil
}

func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	return apiequality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if _, ok := t.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; !ok {
		return t
	}
	plain := *t
	plain.Labels = maps.Clone(t.Labels)
	delete(plain.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return &plain
}

// templateHash names a template. Collisions are counted, and change the name.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) (string, error) {
	data, err := t.Marshal()
	if err != nil {
		return "", fmt.Errorf("encode the pod template: %w", err)
	}
	hash := fnv.New32a()
	hash.Write(data)
	if collisions != nil {
		hash.Write(binary.LittleEndian.AppendUint32(nil, uint32(*collisions)))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(hash.Sum32()), 10)), nil
}

// ensureNewest finds or makes the replica set of the present template, and sees to the revisions.
func (r *rollout) ensureNewest(ctx context.Context) error {
	if r.newest == nil {
		if err := r.createNewest(ctx); err != nil {
			return err
		}
	} else if r.condition(appsv1.DeploymentProgressing) == nil && r.object.Spec.ProgressDeadlineSeconds != nil {
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet",
			fmt.Sprintf("Replica set %q has this template already.", r.newest.Name))
	}
	return r.recordRevision(ctx)
}

func (r *rollout) createNewest(ctx context.Context) error {
	set, err := r.newSet()
	if err != nil {
		return err
	}
	created, err := r.d.c.client.Create(ctx, set)
	if apierrors.IsAlreadyExists(err) {
		return r.resolveCollision(ctx, set)
	}
	if err != nil {
		return fmt.Errorf("create replica set %s: %w", set.Name, err)
	}
	r.newest = created.(*appsv1.ReplicaSet)
	r.sets = append(r.sets, r.newest)
	if n := size(r.newest); n > 0 {
		r.d.c.recorder.eventf(r.object, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", set.Name, n)
	}
	if r.object.Spec.ProgressDeadlineSeconds != nil {
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated",
			fmt.Sprintf("Created replica set %q.", set.Name))
	}
	return nil
}

// newSet is the replica set for the present template, as large as it may be at once.
func (r *rollout) newSet() (*appsv1.ReplicaSet, error) {
	template := r.object.Spec.Template.DeepCopy()
	hash, err := templateHash(template, r.object.Status.CollisionCount)
	if err != nil {
		return nil, err
	}
	template.Labels = withLabel(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := r.object.Spec.Selector.DeepCopy()
	selector.MatchLabels = withLabel(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.object.Name + "-" + hash, Namespace: r.object.Namespace, Labels: template.Labels, Annotations: r.copiedAnnotations(nil),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.object, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To[int32](0), MinReadySeconds: r.object.Spec.MinReadySeconds, Selector: selector, Template: *template,
		},
	}
	r.newest = set
	set.Spec.Replicas = ptr.To(r.newSize())
	r.newest = nil
	r.annotateSizes(set)
	set.Annotations[revisionAnnotation] = strconv.FormatInt(r.lastRevision(nil)+1, 10)
	return set, nil
}

func withLabel(set map[string]string, name, value string) map[string]string {
	labelled := maps.Clone(set)
	if labelled == nil {
		labelled = map[string]string{}
	}
	labelled[name] = value
	return labelled
}

// resolveCollision deals with a replica set that has the name of a new one: ours, with this very template, or else the name
// is taken and the next attempt gets another one.
func (r *rollout) resolveCollision(ctx context.Context, set *appsv1.ReplicaSet) error {
	existing, ok := store.Get[appsv1.ReplicaSet](r.d.c.reader, set.Namespace, set.Name)
	if ok && metav1.IsControlledBy(existing, r.object) && sameTemplate(&existing.Spec.Template, &r.object.Spec.Template) {
		r.newest = existing
		r.sets = append(r.sets, existing)
		return nil
	}
	_, err := r.d.c.client.Modify(ctx, key(deployments, r.object.Namespace, r.object.Name), "status", func(object api.Object) error {
		current := object.(*appsv1.Deployment)
		current.Status.CollisionCount = ptr.To(ptr.Deref(r.object.Status.CollisionCount, 0) + 1)
		return nil
	})
	if err != nil {
		return fmt.Errorf("count a name collision: %w", err)
	}
	return apierrors.NewAlreadyExists(appsv1.Resource("replicasets"), set.Name)
}

// lastRevision is the highest revision of the replica sets other than one.
func (r *rollout) lastRevision(except *appsv1.ReplicaSet) int64 {
	last := int64(0)
	for _, set := range r.sets {
		if except == nil || set.UID != except.UID {
			last = max(last, revision(set))
		}
	}
	return last
}

func revision(object metav1.Object) int64 {
	n, err := strconv.ParseInt(object.GetAnnotations()[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// recordRevision gives the newest replica set the highest revision (a former one that comes back leaves its old number in
// its history), copies what they share to it, and tells the deployment its revision.
func (r *rollout) recordRevision(ctx context.Context) error {
	if r.newest == nil {
		return nil
	}
	want := max(revision(r.newest), r.lastRevision(r.newest)+1)
	annotations := r.copiedAnnotations(r.newest.Annotations)
	if have := revision(r.newest); have != want {
		if have > 0 {
			history := slices.DeleteFunc(strings.Split(annotations[historyAnnotation], ","), func(s string) bool { return s == "" })
			annotations[historyAnnotation] = strings.Join(append(history, strconv.FormatInt(have, 10)), ",")
		}
		annotations[revisionAnnotation] = strconv.FormatInt(want, 10)
	}
	if !maps.Equal(annotations, r.newest.Annotations) || r.newest.Spec.MinReadySeconds != r.object.Spec.MinReadySeconds {
		if err := r.updateNewest(ctx, annotations); err != nil {
			return err
		}
	}
	return r.tellRevision(ctx, want)
}

func (r *rollout) updateNewest(ctx context.Context, annotations map[string]string) error {
	updated, err := r.d.c.client.Modify(ctx, key(replicaSets, r.newest.Namespace, r.newest.Name), "", func(object api.Object) error {
		object.SetAnnotations(annotations)
		object.(*appsv1.ReplicaSet).Spec.MinReadySeconds = r.object.Spec.MinReadySeconds
		return nil
	})
	if err != nil {
		return fmt.Errorf("annotate replica set %s: %w", r.newest.Name, err)
	}
	r.replace(updated.(*appsv1.ReplicaSet))
	return nil
}

// tellRevision writes with the status: a change of the deployment itself would count as a new generation.
func (r *rollout) tellRevision(ctx context.Context, number int64) error {
	if revision(r.object) == number {
		return nil
	}
	updated, err := r.d.c.client.Modify(ctx, key(deployments, r.object.Namespace, r.object.Name), "status", func(object api.Object) error {
		metav1.SetMetaDataAnnotation(&object.(*appsv1.Deployment).ObjectMeta, revisionAnnotation, strconv.FormatInt(number, 10))
		return nil
	})
	if err != nil {
		return fmt.Errorf("tell the revision: %w", err)
	}
	r.object.Annotations = updated.GetAnnotations()
	return nil
}

// copiedAnnotations are a replica set's own annotations with all others taken from the deployment.
func (r *rollout) copiedAnnotations(have map[string]string) map[string]string {
	annotations := map[string]string{}
	for _, name := range ownAnnotations[1:] {
		if value, ok := have[name]; ok {
			annotations[name] = value
		}
	}
	for name, value := range r.object.Annotations {
		if !slices.Contains(ownAnnotations, name) {
			annotations[name] = value
		}
	}
	return annotations
}

// trimHistory deletes the oldest replica sets that have no pods any more, beyond the limit.
func (r *rollout) trimHistory(ctx context.Context) error {
	if r.object.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	idle := slices.DeleteFunc(r.old(), func(s *appsv1.ReplicaSet) bool {
		return s.DeletionTimestamp != nil || size(s) > 0 || s.Status.Replicas > 0 || s.Status.ObservedGeneration < s.Generation
	})
	slices.SortFunc(idle, func(a, b *appsv1.ReplicaSet) int { return int(revision(a) - revision(b)) })
	for i := range len(idle) - int(*r.object.Spec.RevisionHistoryLimit) {
		set := idle[i]
		opts := metav1.NewPreconditionDeleteOptions(string(set.UID))
		if _, err := r.d.c.client.Delete(ctx, key(replicaSets, set.Namespace, set.Name), opts); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("trim the history: %w", err)
		}
	}
	return nil
}
