package api

import (
	"time"

	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingv1defaults "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/pkg/apis/scheduling/validation"
	"k8s.io/utils/ptr"
)

func priorityClasses() *Kind {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return install[schedulingv1.PriorityClass](&Kind{
		GVK:        schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Resource:   "priorityclasses",
		ShortNames: []string{"pc"},
		NewList:    func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Columns: []Column{
			nameColumn(), integer("Value", doc["value"]), boolean("Global-Default", doc["globalDefault"]), ageColumn(),
			text("PreemptionPolicy", doc["preemptionPolicy"]),
		},
	}, strategy[schedulingv1.PriorityClass, scheduling.PriorityClass]{
		in:       schedulingv1defaults.Convert_v1_PriorityClass_To_scheduling_PriorityClass,
		out:      schedulingv1defaults.Convert_scheduling_PriorityClass_To_v1_PriorityClass,
		defaults: schedulingv1defaults.SetObjectDefaults_PriorityClass,
		row: func(c *schedulingv1.PriorityClass, now time.Time) []any {
			return []any{c.Name, int64(c.Value), c.GlobalDefault, age(c, now), string(ptr.Deref(c.PreemptionPolicy, ""))}
		},
		create:         func(n *scheduling.PriorityClass) { n.Generation = 1 },
		validate:       validation.ValidatePriorityClass,
		validateUpdate: validation.ValidatePriorityClassUpdate,
		declared:       schedulingv1defaults.Validate_PriorityClass,
	})
}
