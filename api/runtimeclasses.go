package api

import (
	"time"

	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	nodeapi "k8s.io/kubernetes/pkg/api/node"
	"k8s.io/kubernetes/pkg/apis/node"
	nodev1defaults "k8s.io/kubernetes/pkg/apis/node/v1"
	"k8s.io/kubernetes/pkg/apis/node/validation"
)

func runtimeClasses() *Kind {
	return install[nodev1.RuntimeClass](&Kind{
		GVK:            nodev1.SchemeGroupVersion.WithKind("RuntimeClass"),
		Resource:       "runtimeclasses",
		CreateOnUpdate: true,
		NeedsRevision:  true,
		NewList:        func() runtime.Object { return &nodev1.RuntimeClassList{} },
		Columns:        []Column{nameColumn(), text("Handler", ""), ageColumn()},
	}, strategy[nodev1.RuntimeClass, node.RuntimeClass]{
		in:       nodev1defaults.Convert_v1_RuntimeClass_To_node_RuntimeClass,
		out:      nodev1defaults.Convert_node_RuntimeClass_To_v1_RuntimeClass,
		row:      func(c *nodev1.RuntimeClass, now time.Time) []any { return []any{c.Name, c.Handler, age(c, now)} },
		validate: validation.ValidateRuntimeClass,
		validateUpdate: func(n, o *node.RuntimeClass) field.ErrorList {
			return append(validation.ValidateRuntimeClass(n), validation.ValidateRuntimeClassUpdate(n, o)...)
		},
		declared: nodev1defaults.Validate_RuntimeClass,
		same:     validation.NodeNormalizationRules,
		warn:     func(n, _ *node.RuntimeClass) []string { return nodeapi.GetWarningsForRuntimeClass(n) },
	})
}
