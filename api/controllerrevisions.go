package api

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsv1defaults "k8s.io/kubernetes/pkg/apis/apps/v1"
	"k8s.io/kubernetes/pkg/apis/apps/validation"
)

func controllerRevisions() *Kind {
	return install[appsv1.ControllerRevision](&Kind{
		GVK:        appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
		Resource:   "controllerrevisions",
		Namespaced: true,
		NewList:    func() runtime.Object { return &appsv1.ControllerRevisionList{} },
		Columns: []Column{
			nameColumn(), text("Controller", "Controller of the object"), text("Revision", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
			ageColumn(),
		},
	}, strategy[appsv1.ControllerRevision, apps.ControllerRevision]{
		in:  appsv1defaults.Convert_v1_ControllerRevision_To_apps_ControllerRevision,
		out: appsv1defaults.Convert_apps_ControllerRevision_To_v1_ControllerRevision,
		row: func(r *appsv1.ControllerRevision, now time.Time) []any {
			return []any{r.Name, controllerName(r), r.Revision, age(r, now)}
		},
		validate:       validation.ValidateControllerRevisionCreate,
		validateUpdate: validation.ValidateControllerRevisionUpdate,
		declared:       appsv1defaults.Validate_ControllerRevision,
	})
}

// controllerName is who controls an object, as kubectl names it: "daemonset.apps/logger".
func controllerName(o metav1.Object) string {
	ref := metav1.GetControllerOf(o)
	if ref == nil {
		return "<none>"
	}
	gk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	if gk.Empty() {
		return ref.Name
	}
	return strings.ToLower(gk.String()) + "/" + ref.Name
}
