package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func configMaps() *Kind {
	return install[corev1.ConfigMap](&Kind{
		GVK:        corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		Resource:   "configmaps",
		Singular:   "configmap",
		ShortNames: []string{"cm"},
		Namespaced: true,
		Verbs:      crud(),
		New:        func() Object { return &corev1.ConfigMap{} },
		NewList:    func() runtime.Object { return &corev1.ConfigMapList{} },
		Default:    func(o Object) { corev1defaults.SetObjectDefaults_ConfigMap(o.(*corev1.ConfigMap)) },
		Columns:    []Column{nameColumn(), text("Data", corev1.ConfigMap{}.SwaggerDoc()["data"]), ageColumn()},
		Row: func(o Object, now time.Time) []any {
			c := o.(*corev1.ConfigMap)
			return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), age(c, now)}
		},
	}, strategy[corev1.ConfigMap, core.ConfigMap]{
		in:             corev1defaults.Convert_v1_ConfigMap_To_core_ConfigMap,
		out:            corev1defaults.Convert_core_ConfigMap_To_v1_ConfigMap,
		declared:       corev1defaults.Validate_ConfigMap,
		validate:       validation.ValidateConfigMap,
		validateUpdate: validation.ValidateConfigMapUpdate,
	})
}
