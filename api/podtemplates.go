package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func podTemplates() *Kind {
	return install[corev1.PodTemplate](&Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("PodTemplate"),
		Resource:   "podtemplates",
		Namespaced: true,
		NewList:    func() runtime.Object { return &corev1.PodTemplateList{} },
		Columns: []Column{
			nameColumn(), text("Containers", "Names of each container in the template."),
			text("Images", "Images referenced by each container in the template."), text("Pod Labels", "The labels for the pod template."),
		},
	}, strategy[corev1.PodTemplate, core.PodTemplate]{
		in:       corev1defaults.Convert_v1_PodTemplate_To_core_PodTemplate,
		out:      corev1defaults.Convert_core_PodTemplate_To_v1_PodTemplate,
		defaults: corev1defaults.SetObjectDefaults_PodTemplate,
		row: func(t *corev1.PodTemplate, _ time.Time) []any {
			names, images := containerCells(t.Template.Spec.Containers)
			return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
		},
		create: func(n *core.PodTemplate) {
			n.Generation = 1
			podutil.DropDisabledTemplateFields(&n.Template, nil)
		},
		update: func(n, o *core.PodTemplate) {
			podutil.DropDisabledTemplateFields(&n.Template, &o.Template)
			n.Generation = nextGeneration(o.Generation, n.Template, o.Template)
		},
		validate: func(n *core.PodTemplate) field.ErrorList {
			return validation.ValidatePodTemplate(n, templateOptions(&n.Template, nil))
		},
		validateUpdate: func(n, o *core.PodTemplate) field.ErrorList {
			return validation.ValidatePodTemplateUpdate(n, o, templateOptions(&n.Template, &o.Template))
		},
		declared: corev1defaults.Validate_PodTemplate,
		warn: func(n, o *core.PodTemplate) []string {
			switch path := field.NewPath("template"); {
			case o == nil:
				return templateWarnings(path, &n.Template, nil)
			case n.Generation != o.Generation:
				return templateWarnings(path, &n.Template, &o.Template)
			}
			return nil
		},
	})
}
