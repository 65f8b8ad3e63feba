package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// statefulSetLoop keeps the pods of stateful sets, each with a name and claims of its own. A pod is only made anew when the one of its name is gone from the
// store, and that it is only when its device has said so: two of the same name never run.
type statefulSetLoop struct {
	c      *Controllers
	strays strays
}

func (c *Controllers) addStatefulSets() {
	s := &statefulSetLoop{c: c}
	l := c.newLoop("statefulset", 4, s.reconcile)
	c.follow(statefulSets, "", keys(l))
	c.followPods(l, &s.strays, "StatefulSet", statefulSets)
}

func (s *statefulSetLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	set, ok := store.Get[appsv1.StatefulSet](s.c.reader, k.Namespace, k.Name)
	if !ok {
		return 0, nil // its pods are the garbage collector's
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("selector: %w", err)
	}
	owned, err := claim[corev1.Pod](ctx, s.c, &s.strays, set, selector)
	if err != nil || set.DeletionTimestamp != nil {
		return 0, err
	}
	update, err := s.c.revise(ctx, &history{
		owner: set, template: &set.Spec.Template, limit: set.Spec.RevisionHistoryLimit, collisions: set.Status.CollisionCount,
		count: func(o api.Object) { oneMore(&o.(*appsv1.StatefulSet).Status.CollisionCount) },
		used: func(r *appsv1.ControllerRevision) bool {
			return r.Name == set.Status.CurrentRevision || anyOf(owned, r.Name)
		},
	})
	if err != nil {
		return 0, err
	}
	current := update
	if was, ok := store.Get[appsv1.ControllerRevision](s.c.reader, set.Namespace, set.Status.CurrentRevision); ok && metav1.IsControlledBy(was, set) {
		current = was
	}
	plan := newOrdinalPlan(set, current.Name, update.Name, owned, s.c.now())
	plan.decide()
	failure := s.carryOut(ctx, set, plan, current, update)
	owned = store.ListBy[corev1.Pod](s.c.reader, store.OwnerIndex, string(set.UID))
	now := newOrdinalPlan(set, current.Name, update.Name, owned, s.c.now())
	if err := s.report(ctx, set, now.status()); err != nil {
		return 0, err
	}
	plan.after(now.again)
	return plan.again, failure
}

// carryOut makes and deletes pods.
func (s *statefulSetLoop) carryOut(ctx context.Context, set *appsv1.StatefulSet, plan *ordinalPlan, current, update *appsv1.ControllerRevision) error {
	for _, pod := range plan.remove {
		if slices.Contains(plan.beyond, pod) {
			if err := s.doomClaims(ctx, set, pod); err != nil {
				return err
			}
		}
	}
	if err := s.c.deletePods(ctx, set, plan.remove); err != nil {
		return err
	}
	for _, m := range plan.make {
		template, revision := &set.Spec.Template, update.Name
		if m.former && current != update {
			var err error
			if template, err = templateOf(current); err != nil {
				return err
			}
			revision = current.Name
		}
		if err := s.makeClaims(ctx, set, m.ordinal); err != nil {
			return err
		}
		if _, err := s.c.createPod(ctx, set, podOf(set, template, revision, m.ordinal)); err != nil {
			if errors.Is(err, errKeep) {
				return nil
			}
			return err
		}
	}
	return nil
}

// podOf is the pod of an ordinal.
func podOf(set *appsv1.StatefulSet, of *corev1.PodTemplateSpec, revision string, ordinal int) *corev1.Pod {
	t := of.DeepCopy()
	name := ordinalName(set, ordinal)
	t.Labels = withLabel(t.Labels, appsv1.ControllerRevisionHashLabelKey, revision)
	t.Labels[appsv1.StatefulSetPodNameLabel], t.Labels[appsv1.PodIndexLabel] = name, strconv.Itoa(ordinal)
	t.Spec.Hostname, t.Spec.Subdomain = name, set.Spec.ServiceName
	for _, claim := range set.Spec.VolumeClaimTemplates {
		t.Spec.Volumes = slices.DeleteFunc(t.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == claim.Name })
		t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + name},
		}})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers}, Spec: t.Spec,
	}
}

func ordinalName(set *appsv1.StatefulSet, ordinal int) string {
	return set.Name + "-" + strconv.Itoa(ordinal)
}

// ordinalOf reads the ordinal in a pod's name.
func ordinalOf(set *appsv1.StatefulSet, pod *corev1.Pod) (int, bool) {
	text, ok := strings.CutPrefix(pod.Name, set.Name+"-")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n >= 0 && strconv.Itoa(n) == text
}

// makeClaims makes the claims of an ordinal that are not there.
func (s *statefulSetLoop) makeClaims(ctx context.Context, set *appsv1.StatefulSet, ordinal int) error {
	for i := range set.Spec.VolumeClaimTemplates {
		claim := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		claim.Name, claim.Namespace = claim.Name+"-"+ordinalName(set, ordinal), set.Namespace
		if _, ok := store.Get[corev1.PersistentVolumeClaim](s.c.reader, claim.Namespace, claim.Name); ok {
			continue
		}
		claim.Labels = maps.Clone(claim.Labels)
		if claim.Labels == nil {
			claim.Labels = map[string]string{}
		}
		maps.Copy(claim.Labels, set.Spec.Selector.MatchLabels)
		if p := set.Spec.PersistentVolumeClaimRetentionPolicy; p != nil && p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			claim.OwnerReferences = []metav1.OwnerReference{{
				APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "StatefulSet", Name: set.Name, UID: set.UID,
			}}
		}
		if _, err := s.c.client.Create(ctx, claim); err != nil && !apierrors.IsAlreadyExists(err) {
			s.c.recorder.eventf(set, corev1.EventTypeWarning, "FailedCreate", "create Claim %s for Pod %s in StatefulSet %s failed error: %v",
				claim.Name, ordinalName(set, ordinal), set.Name, err)
			return fmt.Errorf("create claim %s: %w", claim.Name, err)
		}
	}
	return nil
}

// doomClaims lets the claims of a pod that is one too many go with it, if the set says so.
func (s *statefulSetLoop) doomClaims(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	if p := set.Spec.PersistentVolumeClaimRetentionPolicy; p == nil || p.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
		return nil
	}
	for _, template := range set.Spec.VolumeClaimTemplates {
		k := key("persistentvolumeclaims", pod.Namespace, template.Name+"-"+pod.Name)
		_, err := s.c.client.Modify(ctx, k, "", func(object api.Object) error {
			ref := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
			if slices.Equal(object.GetOwnerReferences(), []metav1.OwnerReference{ref}) {
				return errKeep
			}
			object.SetOwnerReferences([]metav1.OwnerReference{ref})
			return nil
		})
		if err != nil && !apierrors.IsNotFound(err) && !errors.Is(err, errKeep) {
			return fmt.Errorf("claim %s: %w", k.Name, err)
		}
	}
	return nil
}

func (s *statefulSetLoop) report(ctx context.Context, set *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if apiequality.Semantic.DeepEqual(status, set.Status) {
		return nil
	}
	return s.c.writeStatus(ctx, set, func(object api.Object) {
		now := object.(*appsv1.StatefulSet)
		status.CollisionCount = now.Status.CollisionCount
		now.Status = status
	})
}

// replicasOf is how many pods a set is to have.
func replicasOf(set *appsv1.StatefulSet) int { return int(ptr.Deref(set.Spec.Replicas, 1)) }
