package api

import (
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// labelEndpointsManagedBy tells who writes an Endpoints object; the controller's own need no warnings.
const labelEndpointsManagedBy = "endpoints.kubernetes.io/managed-by"

func endpoints() *Kind {
	return install[corev1.Endpoints](&Kind{ //nolint:staticcheck // deprecated upstream, and still served
		GVK:            corev1.SchemeGroupVersion.WithKind("Endpoints"),
		Resource:       "endpoints",
		ShortNames:     []string{"ep"},
		Namespaced:     true,
		CreateOnUpdate: true,
		NewList:        func() runtime.Object { return &corev1.EndpointsList{} },                                           //nolint:staticcheck
		Columns:        []Column{nameColumn(), text("Endpoints", corev1.Endpoints{}.SwaggerDoc()["subsets"]), ageColumn()}, //nolint:staticcheck
	}, strategy[corev1.Endpoints, core.Endpoints]{ //nolint:staticcheck
		in:       corev1defaults.Convert_v1_Endpoints_To_core_Endpoints,
		out:      corev1defaults.Convert_core_Endpoints_To_v1_Endpoints,
		defaults: corev1defaults.SetObjectDefaults_Endpoints,
		row: func(e *corev1.Endpoints, now time.Time) []any { //nolint:staticcheck
			if len(e.Subsets) == 0 {
				return []any{e.Name, "<none>", age(e, now)}
			}
			return []any{e.Name, listed(endpointAddresses(e), 3), age(e, now)}
		},
		validate:       validation.ValidateEndpointsCreate,
		validateUpdate: validation.ValidateEndpointsUpdate,
		declared:       corev1defaults.Validate_Endpoints,
		warn:           func(n, _ *core.Endpoints) []string { return endpointsWarnings(n) },
	})
}

// endpointAddresses are the ready addresses with each of their ports.
func endpointAddresses(e *corev1.Endpoints) []string { //nolint:staticcheck
	var all []string
	for _, s := range e.Subsets {
		for _, a := range s.Addresses {
			if len(s.Ports) == 0 {
				all = append(all, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				all = append(all, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	return all
}

func endpointsWarnings(e *core.Endpoints) []string {
	if e.Labels[labelEndpointsManagedBy] == "endpoint-controller" {
		return nil
	}
	var w []string
	warn := func(path *field.Path, addresses []core.EndpointAddress) {
		for i, a := range addresses {
			w = append(w, utilvalidation.GetWarningsForIP(path.Index(i).Child("ip"), a.IP)...)
		}
	}
	for i, s := range e.Subsets {
		path := field.NewPath("subsets").Index(i)
		warn(path.Child("addresses"), s.Addresses)
		warn(path.Child("notReadyAddresses"), s.NotReadyAddresses)
	}
	return w
}
