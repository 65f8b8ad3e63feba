package api

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/utils/ptr"
)

func replicationControllers() *Kind {
	spec, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	return install[corev1.ReplicationController](&Kind{
		GVK:             corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		Resource:        "replicationcontrollers",
		ShortNames:      []string{"rc"},
		Categories:      []string{"all"},
		Namespaced:      true,
		Subresources:    []string{"scale", "status"},
		OrphanByDefault: true,
		NewList:         func() runtime.Object { return &corev1.ReplicationControllerList{} },
		Columns: append([]Column{
			nameColumn(), integer("Desired", spec["replicas"]), integer("Current", status["replicas"]), integer("Ready", status["readyReplicas"]),
			ageColumn(),
		}, append(templateColumns(), wide("Selector", spec["selector"]))...),
	}, strategy[corev1.ReplicationController, core.ReplicationController]{
		in:       corev1defaults.Convert_v1_ReplicationController_To_core_ReplicationController,
		out:      corev1defaults.Convert_core_ReplicationController_To_v1_ReplicationController,
		defaults: corev1defaults.SetObjectDefaults_ReplicationController,
		fields: func(r *corev1.ReplicationController) map[string]string {
			return map[string]string{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		},
		row: replicationControllerRow,
		create: func(n *core.ReplicationController) {
			n.Status, n.Generation = core.ReplicationControllerStatus{}, 1
			podutil.DropDisabledTemplateFields(n.Spec.Template, nil)
		},
		update: func(n, o *core.ReplicationController) {
			n.Status = o.Status
			podutil.DropDisabledTemplateFields(n.Spec.Template, o.Spec.Template)
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *core.ReplicationController) { n.Spec = o.Spec },
		validate: func(n *core.ReplicationController) field.ErrorList {
			return validation.ValidateReplicationController(n, templateOptions(n.Spec.Template, nil))
		},
		validateUpdate: func(n, o *core.ReplicationController) field.ErrorList {
			return validation.ValidateReplicationControllerUpdate(n, o, templateOptions(n.Spec.Template, o.Spec.Template))
		},
		validateStatus: validation.ValidateReplicationControllerStatusUpdate,
		declared:       corev1defaults.Validate_ReplicationController,
		warn: func(n, o *core.ReplicationController) []string {
			switch path := field.NewPath("spec", "template"); {
			case o == nil:
				return append(podNameWarning(n.Name, "Pod names and hostnames"), templateWarnings(path, n.Spec.Template, nil)...)
			case n.Generation != o.Generation:
				return templateWarnings(path, n.Spec.Template, o.Spec.Template)
			}
			return nil
		},
	})
}

func replicationControllerRow(r *corev1.ReplicationController, now time.Time) []any {
	var containers []corev1.Container
	if r.Spec.Template != nil {
		containers = r.Spec.Template.Spec.Containers
	}
	names, images := containerCells(containers)
	return []any{
		r.Name, int64(ptr.Deref(r.Spec.Replicas, 0)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), age(r, now), names, images,
		labels.FormatLabels(r.Spec.Selector),
	}
}
