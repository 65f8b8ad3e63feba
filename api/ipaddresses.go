package api

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingv1defaults "k8s.io/kubernetes/pkg/apis/networking/v1"
	"k8s.io/kubernetes/pkg/apis/networking/validation"
)

func ipAddresses() *Kind {
	return install[networkingv1.IPAddress](&Kind{
		GVK:        networkingv1.SchemeGroupVersion.WithKind("IPAddress"),
		Resource:   "ipaddresses",
		ShortNames: []string{"ip"},
		NewList:    func() runtime.Object { return &networkingv1.IPAddressList{} },
		Columns: []Column{
			nameColumn(), text("ParentRef", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
		},
	}, strategy[networkingv1.IPAddress, networking.IPAddress]{
		in:       networkingv1defaults.Convert_v1_IPAddress_To_networking_IPAddress,
		out:      networkingv1defaults.Convert_networking_IPAddress_To_v1_IPAddress,
		row:      func(a *networkingv1.IPAddress, _ time.Time) []any { return []any{a.Name, parentName(a)} },
		validate: validation.ValidateIPAddress,
		validateUpdate: func(n, o *networking.IPAddress) field.ErrorList {
			return append(validation.ValidateIPAddress(n), validation.ValidateIPAddressUpdate(n, o)...)
		},
		declared: networkingv1defaults.Validate_IPAddress,
	})
}

// parentName is the object that has the address: "services/default/web".
func parentName(a *networkingv1.IPAddress) string {
	ref := a.Spec.ParentRef
	if ref == nil {
		return "<none>"
	}
	parts := []string{strings.ToLower(schema.GroupResource{Group: ref.Group, Resource: ref.Resource}.String()), ref.Name}
	if ref.Namespace != "" {
		parts = []string{parts[0], ref.Namespace, ref.Name}
	}
	return strings.Join(parts, "/")
}
