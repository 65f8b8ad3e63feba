package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func resourceQuotas() *Kind {
	return install[corev1.ResourceQuota](&Kind{
		GVK:          corev1.SchemeGroupVersion.WithKind("ResourceQuota"),
		Resource:     "resourcequotas",
		ShortNames:   []string{"quota"},
		Namespaced:   true,
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &corev1.ResourceQuotaList{} },
		Columns: []Column{
			nameColumn(), text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
			text("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
			ageColumn(),
		},
	}, strategy[corev1.ResourceQuota, core.ResourceQuota]{
		in:             corev1defaults.Convert_v1_ResourceQuota_To_core_ResourceQuota,
		out:            corev1defaults.Convert_core_ResourceQuota_To_v1_ResourceQuota,
		defaults:       corev1defaults.SetObjectDefaults_ResourceQuota,
		row:            resourceQuotaRow,
		create:         func(n *core.ResourceQuota) { n.Status = core.ResourceQuotaStatus{} },
		update:         func(n, o *core.ResourceQuota) { n.Status = o.Status },
		status:         func(n, o *core.ResourceQuota) { n.Spec = o.Spec },
		validate:       validation.ValidateResourceQuota,
		validateUpdate: validation.ValidateResourceQuotaUpdate,
		validateStatus: validation.ValidateResourceQuotaStatusUpdate,
		declared:       corev1defaults.Validate_ResourceQuota,
		warn: func(n, o *core.ResourceQuota) []string {
			if o != nil {
				return nil
			}
			return quotaWarnings(n.Spec.Hard)
		},
	})
}

// quotaWarnings tells of requests that are limited to more than the limits are.
func quotaWarnings(hard core.ResourceList) []string {
	var w []string
	for _, name := range []core.ResourceName{core.ResourceCPU, core.ResourceMemory, core.ResourceStorage, core.ResourceEphemeralStorage} {
		requests, limits := core.ResourceName("requests."+name), core.ResourceName("limits."+name)
		request, ok := hard[requests]
		if !ok && (name == core.ResourceCPU || name == core.ResourceMemory) {
			if request, ok = hard[name]; ok {
				requests = name
			}
		}
		if limit, limited := hard[limits]; ok && limited && request.Cmp(limit) > 0 {
			w = append(w, fmt.Sprintf("ResourceQuota %s (%s) should be less than %s (%s)", requests, request.String(), limits, limit.String()))
		}
	}
	return w
}

func resourceQuotaRow(q *corev1.ResourceQuota, now time.Time) []any {
	var requests, limits []string
	for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		cell := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
		if strings.HasPrefix(string(name), "limits.") {
			limits = append(limits, cell)
		} else {
			requests = append(requests, cell)
		}
	}
	return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), age(q, now)}
}
