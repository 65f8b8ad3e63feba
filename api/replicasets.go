package api

import (
	"context"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsv1defaults "k8s.io/kubernetes/pkg/apis/apps/v1"
	"k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/utils/ptr"
)

func replicaSets() *Kind {
	status := appsv1.ReplicaSetStatus{}.SwaggerDoc()
	spec := appsv1.ReplicaSetSpec{}.SwaggerDoc()
	return install[appsv1.ReplicaSet](&Kind{
		GVK:          appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Resource:     "replicasets",
		Singular:     "replicaset",
		ShortNames:   []string{"rs"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        crud(),
		Subresources: []string{"scale", "status"},
		New:          func() Object { return &appsv1.ReplicaSet{} },
		NewList:      func() runtime.Object { return &appsv1.ReplicaSetList{} },
		Default:      func(o Object) { appsv1defaults.SetObjectDefaults_ReplicaSet(o.(*appsv1.ReplicaSet)) },
		Fields: func(o Object) map[string]string {
			return map[string]string{"status.replicas": strconv.Itoa(int(o.(*appsv1.ReplicaSet).Status.Replicas))}
		},
		Columns: []Column{
			nameColumn(), integer("Desired", spec["replicas"]), integer("Current", status["replicas"]),
			integer("Ready", status["readyReplicas"]), ageColumn(), wide("Containers", "Names of each container in the template."),
			wide("Images", "Images referenced by each container in the template."), wide("Selector", spec["selector"]),
		},
		Row: func(o Object, now time.Time) []any { return replicaSetRow(o.(*appsv1.ReplicaSet), now) },
	}, strategy[appsv1.ReplicaSet, apps.ReplicaSet]{
		in:  appsv1defaults.Convert_v1_ReplicaSet_To_apps_ReplicaSet,
		out: appsv1defaults.Convert_apps_ReplicaSet_To_v1_ReplicaSet,
		create: func(n *apps.ReplicaSet) {
			n.Status, n.Generation = apps.ReplicaSetStatus{}, 1
			podutil.DropDisabledTemplateFields(&n.Spec.Template, nil)
		},
		update: func(n, o *apps.ReplicaSet) {
			n.Status = o.Status
			podutil.DropDisabledTemplateFields(&n.Spec.Template, &o.Spec.Template)
			if !apiequality.Semantic.DeepEqual(n.Spec, o.Spec) {
				n.Generation = o.Generation + 1
			}
		},
		status:   func(n, o *apps.ReplicaSet) { n.Spec = o.Spec },
		declared: appsv1defaults.Validate_ReplicaSet,
		validate: func(n *apps.ReplicaSet) field.ErrorList {
			return validation.ValidateReplicaSet(n, podutil.GetValidationOptionsFromPodTemplate(&n.Spec.Template, nil))
		},
		validateUpdate: func(n, o *apps.ReplicaSet) field.ErrorList {
			return validation.ValidateReplicaSetUpdate(n, o, podutil.GetValidationOptionsFromPodTemplate(&n.Spec.Template, &o.Spec.Template))
		},
		validateStatus: validation.ValidateReplicaSetStatusUpdate,
		warn: func(n, o *apps.ReplicaSet) []string {
			path := field.NewPath("spec", "template")
			if o == nil {
				w := podNameWarning(n.Name, "Pod names and hostnames")
				return append(w, podutil.GetWarningsForPodTemplate(context.Background(), path, &n.Spec.Template, nil)...)
			}
			if n.Generation == o.Generation {
				return nil
			}
			return podutil.GetWarningsForPodTemplate(context.Background(), path, &n.Spec.Template, &o.Spec.Template)
		},
	})
}

func replicaSetRow(r *appsv1.ReplicaSet, now time.Time) []any {
	names, images := containerCells(r.Spec.Template.Spec.Containers)
	return []any{
		r.Name, int64(ptr.Deref(r.Spec.Replicas, 0)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), age(r, now),
		names, images, metav1.FormatLabelSelector(r.Spec.Selector),
	}
}
