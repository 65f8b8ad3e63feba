package api

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingv1defaults "k8s.io/kubernetes/pkg/apis/networking/v1"
	"k8s.io/kubernetes/pkg/apis/networking/validation"
)

func serviceCIDRs() *Kind {
	return install[networkingv1.ServiceCIDR](&Kind{
		GVK:          networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"),
		Resource:     "servicecidrs",
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &networkingv1.ServiceCIDRList{} },
		Columns:      []Column{nameColumn(), text("CIDRs", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]), ageColumn()},
	}, strategy[networkingv1.ServiceCIDR, networking.ServiceCIDR]{
		in:  networkingv1defaults.Convert_v1_ServiceCIDR_To_networking_ServiceCIDR,
		out: networkingv1defaults.Convert_networking_ServiceCIDR_To_v1_ServiceCIDR,
		row: func(c *networkingv1.ServiceCIDR, now time.Time) []any {
			return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), age(c, now)}
		},
		create: func(n *networking.ServiceCIDR) { n.Status = networking.ServiceCIDRStatus{} },
		update: func(n, o *networking.ServiceCIDR) { n.Status = o.Status },
		status: func(n, o *networking.ServiceCIDR) {
			n.Spec = o.Spec
			metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &o.ObjectMeta)
		},
		validate:       validation.ValidateServiceCIDR,
		validateUpdate: validation.ValidateServiceCIDRUpdate,
		validateStatus: validation.ValidateServiceCIDRStatusUpdate,
		declared:       networkingv1defaults.Validate_ServiceCIDR,
	})
}
