package api

import (
	"strconv"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	autoscalingv1defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v1"
	autoscalingv2defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
)

func horizontalPodAutoscalers() *Kind {
	spec := autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()
	return install[autoscalingv2.HorizontalPodAutoscaler](&Kind{
		GVK:          autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		Resource:     "horizontalpodautoscalers",
		ShortNames:   []string{"hpa"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscalerList{} },
		Columns: []Column{
			nameColumn(), text("Reference", spec["scaleTargetRef"]), text("Targets", spec["metrics"]), text("MinPods", spec["minReplicas"]),
			text("MaxPods", spec["maxReplicas"]),
			text("Replicas", autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()["currentReplicas"]), ageColumn(),
		},
	}, strategy[autoscalingv2.HorizontalPodAutoscaler, autoscaling.HorizontalPodAutoscaler]{
		in:       autoscalingv2defaults.Convert_v2_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler,
		out:      autoscalingv2defaults.Convert_autoscaling_HorizontalPodAutoscaler_To_v2_HorizontalPodAutoscaler,
		defaults: autoscalingv2defaults.SetObjectDefaults_HorizontalPodAutoscaler,
		row:      autoscalerRow,
		create: func(n *autoscaling.HorizontalPodAutoscaler) {
			n.Status, n.Generation = autoscaling.HorizontalPodAutoscalerStatus{}, 1
		},
		update: func(n, o *autoscaling.HorizontalPodAutoscaler) {
			n.Status, n.Generation = o.Status, nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status:         func(n, o *autoscaling.HorizontalPodAutoscaler) { n.Spec = o.Spec },
		validate:       validateAutoscaler,
		validateUpdate: validateAutoscalerUpdate,
		validateStatus: validateAutoscalerStatus,
		declared:       autoscalingv2defaults.Validate_HorizontalPodAutoscaler,
	})
}

// horizontalPodAutoscalersV1 serves the same objects in the older version, which keeps in annotations what it has no fields for.
func horizontalPodAutoscalersV1(stored *Kind) *Kind {
	return conversions[autoscalingv1.HorizontalPodAutoscaler, autoscalingv2.HorizontalPodAutoscaler, autoscaling.HorizontalPodAutoscaler]{
		gvk:       autoscalingv1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		new:       func() Object { return &autoscalingv1.HorizontalPodAutoscaler{} },
		newList:   func() runtime.Object { return &autoscalingv1.HorizontalPodAutoscalerList{} },
		defaults:  autoscalingv1defaults.SetObjectDefaults_HorizontalPodAutoscaler,
		in:        autoscalingv1defaults.Convert_v1_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler,
		out:       autoscalingv1defaults.Convert_autoscaling_HorizontalPodAutoscaler_To_v1_HorizontalPodAutoscaler,
		storedIn:  autoscalingv2defaults.Convert_v2_HorizontalPodAutoscaler_To_autoscaling_HorizontalPodAutoscaler,
		storedOut: autoscalingv2defaults.Convert_autoscaling_HorizontalPodAutoscaler_To_v2_HorizontalPodAutoscaler,
	}.of(stored)
}

func autoscalerRow(a *autoscalingv2.HorizontalPodAutoscaler, now time.Time) []any {
	minimum := "<unset>"
	if m := a.Spec.MinReplicas; m != nil {
		minimum = strconv.Itoa(int(*m))
	}
	return []any{
		a.Name, a.Spec.ScaleTargetRef.Kind + "/" + a.Spec.ScaleTargetRef.Name, autoscalerTargets(a), minimum, int64(a.Spec.MaxReplicas),
		int64(a.Status.CurrentReplicas), age(a, now),
	}
}
