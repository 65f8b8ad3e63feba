package api

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsv1defaults "k8s.io/kubernetes/pkg/apis/apps/v1"
	"k8s.io/kubernetes/pkg/apis/apps/validation"
)

func daemonSets() *Kind {
	spec, status := appsv1.DaemonSetSpec{}.SwaggerDoc(), appsv1.DaemonSetStatus{}.SwaggerDoc()
	return install[appsv1.DaemonSet](&Kind{
		GVK:          appsv1.SchemeGroupVersion.WithKind("DaemonSet"),
		Resource:     "daemonsets",
		ShortNames:   []string{"ds"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &appsv1.DaemonSetList{} },
		Columns: append([]Column{
			nameColumn(), integer("Desired", status["desiredNumberScheduled"]), integer("Current", status["currentNumberScheduled"]),
			integer("Ready", status["numberReady"]), integer("Up-to-date", status["updatedNumberScheduled"]),
			integer("Available", status["numberAvailable"]), text("Node Selector", corev1.PodSpec{}.SwaggerDoc()["nodeSelector"]), ageColumn(),
		}, append(templateColumns(), wide("Selector", spec["selector"]))...),
	}, strategy[appsv1.DaemonSet, apps.DaemonSet]{
		in:  appsv1defaults.Convert_v1_DaemonSet_To_apps_DaemonSet,
		out: appsv1defaults.Convert_apps_DaemonSet_To_v1_DaemonSet,
		defaults: func(d *appsv1.DaemonSet) {
			appsv1defaults.SetObjectDefaults_DaemonSet(d)
			if _, ok := d.Annotations[appsv1.DeprecatedTemplateGeneration]; !ok { // as upstream's conversions do
				metav1.SetMetaDataAnnotation(&d.ObjectMeta, appsv1.DeprecatedTemplateGeneration, "0")
			}
		},
		row: daemonSetRow,
		create: func(n *apps.DaemonSet) {
			n.Status, n.Generation = apps.DaemonSetStatus{}, 1
			n.Spec.TemplateGeneration = max(n.Spec.TemplateGeneration, 1)
			podutil.DropDisabledTemplateFields(&n.Spec.Template, nil)
		},
		update: func(n, o *apps.DaemonSet) {
			n.Status, n.Spec.TemplateGeneration = o.Status, o.Spec.TemplateGeneration
			podutil.DropDisabledTemplateFields(&n.Spec.Template, &o.Spec.Template)
			if !apiequality.Semantic.DeepEqual(n.Spec.Template, o.Spec.Template) {
				n.Spec.TemplateGeneration++
			}
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *apps.DaemonSet) { n.Spec = o.Spec },
		validate: func(n *apps.DaemonSet) field.ErrorList {
			return validation.ValidateDaemonSet(n, templateOptions(&n.Spec.Template, nil))
		},
		validateUpdate: func(n, o *apps.DaemonSet) field.ErrorList {
			opts := templateOptions(&n.Spec.Template, &o.Spec.Template)
			if metav1validation.LabelSelectorHasInvalidLabelValue(o.Spec.Selector) {
				opts.AllowInvalidLabelValueInSelector = true
			}
			return validation.ValidateDaemonSetUpdate(n, o, opts)
		},
		validateStatus: validation.ValidateDaemonSetStatusUpdate,
		declared:       appsv1defaults.Validate_DaemonSet,
		warn: func(n, o *apps.DaemonSet) []string {
			switch path := field.NewPath("spec", "template"); {
			case o == nil:
				return templateWarnings(path, &n.Spec.Template, nil)
			case n.Spec.TemplateGeneration != o.Spec.TemplateGeneration:
				return templateWarnings(path, &n.Spec.Template, &o.Spec.Template)
			}
			return nil
		},
	})
}

func daemonSetRow(d *appsv1.DaemonSet, now time.Time) []any {
	names, images := containerCells(d.Spec.Template.Spec.Containers)
	s := d.Status
	return []any{
		d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady), int64(s.UpdatedNumberScheduled),
		int64(s.NumberAvailable), labels.FormatLabels(d.Spec.Template.Spec.NodeSelector), age(d, now), names, images,
		metav1.FormatLabelSelector(d.Spec.Selector),
	}
}
