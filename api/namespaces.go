package api

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func namespaces() *Kind {
	return install[corev1.Namespace](&Kind{
		GVK:          corev1.SchemeGroupVersion.WithKind("Namespace"),
		Resource:     "namespaces",
		Singular:     "namespace",
		ShortNames:   []string{"ns"},
		Verbs:        []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Subresources: []string{"status", "finalize"},
		New:          func() Object { return &corev1.Namespace{} },
		NewList:      func() runtime.Object { return &corev1.NamespaceList{} },
		Default:      func(o Object) { corev1defaults.SetObjectDefaults_Namespace(o.(*corev1.Namespace)) },
		Fields: func(o Object) map[string]string {
			return map[string]string{"status.phase": string(o.(*corev1.Namespace).Status.Phase), "name": o.GetName()}
		},
		Columns: []Column{nameColumn(), text("Status", "The status of the namespace"), ageColumn()},
		Row: func(o Object, now time.Time) []any {
			return []any{o.GetName(), string(o.(*corev1.Namespace).Status.Phase), age(o, now)}
		},
	}, strategy[corev1.Namespace, core.Namespace]{
		in:  corev1defaults.Convert_v1_Namespace_To_core_Namespace,
		out: corev1defaults.Convert_core_Namespace_To_v1_Namespace,
		create: func(n *core.Namespace) {
			n.Status = core.NamespaceStatus{Phase: core.NamespaceActive}
			if !slices.Contains(n.Spec.Finalizers, core.FinalizerKubernetes) {
				n.Spec.Finalizers = append(n.Spec.Finalizers, core.FinalizerKubernetes)
			}
			labelName(n)
		},
		update: func(n, o *core.Namespace) {
			n.Spec.Finalizers, n.Status = o.Spec.Finalizers, o.Status
			labelName(n)
		},
		status:   func(n, o *core.Namespace) { n.Spec = o.Spec },
		declared: corev1defaults.Validate_Namespace,
		validate: validation.ValidateNamespace,
		validateUpdate: func(n, o *core.Namespace) field.ErrorList {
			return append(validation.ValidateNamespace(n), validation.ValidateNamespaceUpdate(n, o)...)
		},
		validateStatus: validation.ValidateNamespaceStatusUpdate,
	})
}

// labelName gives the namespace the label that selectors name it by, once a generated name is known too.
func labelName(n *core.Namespace) {
	if n.Name == "" {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}
