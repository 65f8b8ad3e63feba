package controllers

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// classOf is the class of a claim: the one that it names, or the newest of the default ones. Nil: it has none.
func (v *volumes) classOf(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	if name := claim.Spec.StorageClassName; name != nil {
		class, _ := store.Get[storagev1.StorageClass](v.c.reader, "", *name)
		return class
	}
	classes := slices.DeleteFunc(store.List[storagev1.StorageClass](v.c.reader, ""), func(c *storagev1.StorageClass) bool {
		return c.Annotations[defaultClass] != "true"
	})
	if len(classes) == 0 {
		return nil
	}
	return slices.MaxFunc(classes, func(a, b *storagev1.StorageClass) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(b.Name, a.Name))
	})
}

// fitting is the smallest volume that is free and fits a claim, on a node if one is given; one that was kept for the claim comes first.
func (v *volumes) fitting(claim *corev1.PersistentVolumeClaim, node *corev1.Node) *corev1.PersistentVolume {
	all := slices.DeleteFunc(store.List[corev1.PersistentVolume](v.c.reader, ""), func(pv *corev1.PersistentVolume) bool {
		return !fits(pv, claim) || node != nil && !reachable(pv, node)
	})
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(a, b *corev1.PersistentVolume) int {
		if (a.Spec.ClaimRef == nil) != (b.Spec.ClaimRef == nil) {
			if a.Spec.ClaimRef != nil {
				return -1
			}
			return 1
		}
		return cmp.Or(room(a).Cmp(*room(b)), cmp.Compare(a.Name, b.Name))
	})
}

// fits reports whether a volume is free, or kept for the claim, and is what the claim asks for.
func fits(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	if ref := pv.Spec.ClaimRef; ref != nil && (ref.Namespace != claim.Namespace || ref.Name != claim.Name || ref.UID != "" && ref.UID != claim.UID) {
		return false
	}
	if pv.DeletionTimestamp != nil || pv.Status.Phase == corev1.VolumeReleased || pv.Status.Phase == corev1.VolumeFailed {
		return false
	}
	if pv.Spec.StorageClassName != ptr.Deref(claim.Spec.StorageClassName, "") ||
		ptr.Deref(pv.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) != ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) {
		return false
	}
	for _, mode := range claim.Spec.AccessModes {
		if !slices.Contains(pv.Spec.AccessModes, mode) {
			return false
		}
	}
	if claim.Spec.Selector != nil {
		selector, err := metav1.LabelSelectorAsSelector(claim.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pv.Labels)) {
			return false
		}
	}
	wanted := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return room(pv).Cmp(wanted) >= 0
}

func room(pv *corev1.PersistentVolume) *resource.Quantity {
	q := pv.Spec.Capacity[corev1.ResourceStorage]
	return &q
}

// reachable reports whether a node can have a volume.
func reachable(pv *corev1.PersistentVolume, node *corev1.Node) bool {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return true
	}
	selector, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	return err == nil && selector.Match(node)
}

// withVolumes is a pod that may only go where its claims' volumes are; or else why it cannot be placed.
func (v *volumes) withVolumes(pod *corev1.Pod) (placed *corev1.Pod, why string) {
	names := claimsOf(pod)
	if len(names) == 0 {
		return pod, ""
	}
	var terms []corev1.NodeSelectorTerm
	for _, name := range names {
		where, why := v.where(pod.Namespace, name)
		if why != "" {
			return nil, why
		}
		terms = both(terms, where)
	}
	if len(terms) == 0 {
		return pod, ""
	}
	bound := pod.DeepCopy()
	if bound.Spec.Affinity == nil {
		bound.Spec.Affinity = &corev1.Affinity{}
	}
	if bound.Spec.Affinity.NodeAffinity == nil {
		bound.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	affinity := bound.Spec.Affinity.NodeAffinity
	if required := affinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		terms = both(required.NodeSelectorTerms, terms)
	}
	affinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: terms}
	return bound, ""
}

// where are the nodes that a claim's volume can be used on, as terms of which one must hold; none: anywhere.
func (v *volumes) where(namespace, name string) (terms []corev1.NodeSelectorTerm, why string) {
	claim, ok := store.Get[corev1.PersistentVolumeClaim](v.c.reader, namespace, name)
	switch {
	case !ok:
		return nil, `persistentvolumeclaim "` + name + `" not found`
	case claim.DeletionTimestamp != nil:
		return nil, `persistentvolumeclaim "` + name + `" is being deleted`
	case claim.Spec.VolumeName != "":
		pv, ok := store.Get[corev1.PersistentVolume](v.c.reader, "", claim.Spec.VolumeName)
		if !ok || claim.Status.Phase == corev1.ClaimLost {
			return nil, `persistentvolumeclaim "` + name + `" has no persistent volume`
		}
		return termsOf(pv), ""
	}
	class := v.classOf(claim)
	if class == nil || ptr.Deref(class.VolumeBindingMode, "") != storagev1.VolumeBindingWaitForFirstConsumer {
		return nil, "pod has unbound immediate PersistentVolumeClaims"
	}
	if class.Provisioner == api.LocalPath {
		return nil, "" // the volume goes where the pod goes
	}
	for _, pv := range store.List[corev1.PersistentVolume](v.c.reader, "") {
		if fits(pv, claim) {
			if where := termsOf(pv); len(where) > 0 {
				terms = append(terms, where...)
			} else {
				return nil, ""
			}
		}
	}
	if len(terms) == 0 {
		return nil, "node(s) didn't find available persistent volumes to bind"
	}
	return terms, ""
}

func termsOf(pv *corev1.PersistentVolume) []corev1.NodeSelectorTerm {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	return pv.Spec.NodeAffinity.Required.NodeSelectorTerms
}

// both are the terms that hold where one of each list holds; a list of none holds everywhere.
func both(a, b []corev1.NodeSelectorTerm) []corev1.NodeSelectorTerm {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	var all []corev1.NodeSelectorTerm
	for _, x := range a {
		for _, y := range b {
			all = append(all, corev1.NodeSelectorTerm{
				MatchExpressions: slices.Concat(x.MatchExpressions, y.MatchExpressions),
				MatchFields:      slices.Concat(x.MatchFields, y.MatchFields),
			})
		}
	}
	return all
}
