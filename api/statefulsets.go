package api

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	claimapi "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsv1defaults "k8s.io/kubernetes/pkg/apis/apps/v1"
	"k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/utils/ptr"
)

func statefulSets() *Kind {
	return install[appsv1.StatefulSet](&Kind{
		GVK:          appsv1.SchemeGroupVersion.WithKind("StatefulSet"),
		Resource:     "statefulsets",
		ShortNames:   []string{"sts"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Subresources: []string{"scale", "status"},
		NewList:      func() runtime.Object { return &appsv1.StatefulSetList{} },
		Restore: func(o Object) {
			claims := o.(*appsv1.StatefulSet).Spec.VolumeClaimTemplates
			for i := range claims {
				claims[i].SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"))
			}
		},
		Columns: append([]Column{
			nameColumn(), text("Ready", "Number of the pod with ready state"), ageColumn(),
		}, templateColumns()...),
	}, strategy[appsv1.StatefulSet, apps.StatefulSet]{
		in:       appsv1defaults.Convert_v1_StatefulSet_To_apps_StatefulSet,
		out:      appsv1defaults.Convert_apps_StatefulSet_To_v1_StatefulSet,
		defaults: appsv1defaults.SetObjectDefaults_StatefulSet,
		row: func(s *appsv1.StatefulSet, now time.Time) []any {
			names, images := containerCells(s.Spec.Template.Spec.Containers)
			ready := fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, ptr.Deref(s.Spec.Replicas, 0))
			return []any{s.Name, ready, age(s, now), names, images}
		},
		create: func(n *apps.StatefulSet) {
			n.Status, n.Generation = apps.StatefulSetStatus{}, 1
			podutil.DropDisabledTemplateFields(&n.Spec.Template, nil)
		},
		update: func(n, o *apps.StatefulSet) {
			n.Status = o.Status
			podutil.DropDisabledTemplateFields(&n.Spec.Template, &o.Spec.Template)
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *apps.StatefulSet) { n.Spec = o.Spec },
		validate: func(n *apps.StatefulSet) field.ErrorList {
			return validation.ValidateStatefulSet(n, validation.StatefulSetValidationOptions{}, templateOptions(&n.Spec.Template, nil))
		},
		validateUpdate: func(n, o *apps.StatefulSet) field.ErrorList {
			// What cannot be changed is not judged again.
			opts := validation.StatefulSetValidationOptions{
				AllowInvalidServiceName: true, SkipValidateVolumeClaimTemplates: true,
				AllowStatefulSetRecreateStrategy: o.Spec.UpdateStrategy.Type == apps.RecreateStatefulSetStrategyType,
			}
			return validation.ValidateStatefulSetUpdate(n, o, opts, templateOptions(&n.Spec.Template, &o.Spec.Template))
		},
		validateStatus: validation.ValidateStatefulSetStatusUpdate,
		declared:       appsv1defaults.Validate_StatefulSet,
		warn:           statefulSetWarnings,
	})
}

func statefulSetWarnings(n, o *apps.StatefulSet) []string {
	var w []string
	path, claim := field.NewPath("spec", "template"), ""
	switch {
	case o == nil:
		w = templateWarnings(path, &n.Spec.Template, nil)
	case n.Generation != o.Generation:
		w, claim = templateWarnings(path, &n.Spec.Template, &o.Spec.Template), "Spec"
	default:
		claim = "Spec"
	}
	for i, c := range n.Spec.VolumeClaimTemplates {
		path := field.NewPath("spec", "volumeClaimTemplates").Index(i)
		if claim != "" {
			path = path.Child(claim)
		}
		w = append(w, claimapi.GetWarningsForPersistentVolumeClaimSpec(path, c.Spec)...)
	}
	if ptr.Deref(n.Spec.RevisionHistoryLimit, 0) < 0 {
		w = append(w, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return w
}
