package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func limitRanges() *Kind {
	return install[corev1.LimitRange](&Kind{
		GVK:            corev1.SchemeGroupVersion.WithKind("LimitRange"),
		Resource:       "limitranges",
		ShortNames:     []string{"limits"},
		Namespaced:     true,
		CreateOnUpdate: true,
		NewList:        func() runtime.Object { return &corev1.LimitRangeList{} },
		Columns:        plainColumns(),
	}, strategy[corev1.LimitRange, core.LimitRange]{
		in:             corev1defaults.Convert_v1_LimitRange_To_core_LimitRange,
		out:            corev1defaults.Convert_core_LimitRange_To_v1_LimitRange,
		defaults:       corev1defaults.SetObjectDefaults_LimitRange,
		row:            func(l *corev1.LimitRange, _ time.Time) []any { return plainRow(l) },
		validate:       validation.ValidateLimitRange,
		validateUpdate: func(n, _ *core.LimitRange) field.ErrorList { return validation.ValidateLimitRange(n) },
		declared:       corev1defaults.Validate_LimitRange,
	})
}
