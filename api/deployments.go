package api

import (
	"context"
	"fmt"
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

func deployments() *Kind {
	status := appsv1.DeploymentStatus{}.SwaggerDoc()
	return install[appsv1.Deployment](&Kind{
		GVK:          appsv1.SchemeGroupVersion.WithKind("Deployment"),
		Resource:     "deployments",
		Singular:     "deployment",
		ShortNames:   []string{"deploy"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Verbs:        crud(),
		Subresources: []string{"scale", "status"},
		New:          func() Object { return &appsv1.Deployment{} },
		NewList:      func() runtime.Object { return &appsv1.DeploymentList{} },
		Default:      func(o Object) { appsv1defaults.SetObjectDefaults_Deployment(o.(*appsv1.Deployment)) },
		Columns: []Column{
			nameColumn(), text("Ready", "Number of the pod with ready state"), text("Up-to-date", status["updatedReplicas"]),
			text("Available", status["availableReplicas"]), ageColumn(), wide("Containers", "Names of each container in the template."),
			wide("Images", "Images referenced by each container in the template."),
			wide("Selector", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"]),
		},
		Row: func(o Object, now time.Time) []any { return deploymentRow(o.(*appsv1.Deployment), now) },
	}, strategy[appsv1.Deployment, apps.Deployment]{
		in:  appsv1defaults.Convert_v1_Deployment_To_apps_Deployment,
		out: appsv1defaults.Convert_apps_Deployment_To_v1_Deployment,
		create: func(n *apps.Deployment) {
			n.Status, n.Generation = apps.DeploymentStatus{}, 1
			podutil.DropDisabledTemplateFields(&n.Spec.Template, nil)
		},
		update: func(n, o *apps.Deployment) {
			n.Status = o.Status
			podutil.DropDisabledTemplateFields(&n.Spec.Template, &o.Spec.Template)
			// Annotations count too: the controller copies them to the replica sets.
			if !apiequality.Semantic.DeepEqual(n.Spec, o.Spec) || !apiequality.Semantic.DeepEqual(n.Annotations, o.Annotations) {
				n.Generation = o.Generation + 1
			}
		},
		status:   func(n, o *apps.Deployment) { n.Spec, n.Labels = o.Spec, o.Labels },
		declared: appsv1defaults.Validate_Deployment,
		validate: func(n *apps.Deployment) field.ErrorList {
			return validation.ValidateDeployment(n, podutil.GetValidationOptionsFromPodTemplate(&n.Spec.Template, nil))
		},
		validateUpdate: func(n, o *apps.Deployment) field.ErrorList {
			return validation.ValidateDeploymentUpdate(n, o, podutil.GetValidationOptionsFromPodTemplate(&n.Spec.Template, &o.Spec.Template))
		},
		validateStatus: validation.ValidateDeploymentStatusUpdate,
		warn: func(n, o *apps.Deployment) []string {
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

func deploymentRow(d *appsv1.Deployment, now time.Time) []any {
	selector := "<invalid>"
	if s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil {
		selector = s.String()
	}
	names, images := containerCells(d.Spec.Template.Spec.Containers)
	return []any{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 0)), int64(d.Status.UpdatedReplicas),
		int64(d.Status.AvailableReplicas), age(d, now), names, images, selector,
	}
}
