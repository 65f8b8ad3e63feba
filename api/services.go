package api

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	serviceapi "k8s.io/kubernetes/pkg/api/service"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func services() *Kind {
	spec := corev1.ServiceSpec{}.SwaggerDoc()
	return install[corev1.Service](&Kind{
		GVK:            corev1.SchemeGroupVersion.WithKind("Service"),
		Resource:       "services",
		ShortNames:     []string{"svc"},
		Categories:     []string{"all"},
		Namespaced:     true,
		Subresources:   []string{"proxy", "status"},
		CreateOnUpdate: true,
		NewList:        func() runtime.Object { return &corev1.ServiceList{} },
		Columns: []Column{
			nameColumn(), text("Type", spec["type"]), text("Cluster-IP", spec["clusterIP"]), text("External-IP", spec["externalIPs"]),
			text("Port(s)", spec["ports"]), ageColumn(), wide("Selector", spec["selector"]),
		},
	}, strategy[corev1.Service, core.Service]{
		in:       corev1defaults.Convert_v1_Service_To_core_Service,
		out:      corev1defaults.Convert_core_Service_To_v1_Service,
		defaults: corev1defaults.SetObjectDefaults_Service,
		fields: func(s *corev1.Service) map[string]string {
			return map[string]string{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		},
		row: serviceRow,
		create: func(n *core.Service) {
			n.Status = core.ServiceStatus{}
			if n.Spec.ClusterIP != "" && len(n.Spec.ClusterIPs) == 0 {
				n.Spec.ClusterIPs = []string{n.Spec.ClusterIP}
			}
			settleTraffic(n)
		},
		update:         prepareServiceUpdate,
		status:         func(n, o *core.Service) { n.Spec = o.Spec },
		validate:       validation.ValidateServiceCreate,
		validateUpdate: validation.ValidateServiceUpdate,
		validateStatus: validation.ValidateServiceStatusUpdate,
		declared:       corev1defaults.Validate_Service,
		warn:           serviceapi.GetWarningsForService,
	})
}

func serviceRow(s *corev1.Service, now time.Time) []any {
	ip := "<none>"
	if len(s.Spec.ClusterIPs) > 0 {
		ip = s.Spec.ClusterIPs[0]
	}
	ports := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return []any{
		s.Name, string(s.Spec.Type), ip, externalIP(s), orNone(strings.Join(ports, ",")), age(s, now), labels.FormatLabels(s.Spec.Selector),
	}
}

func externalIP(s *corev1.Service) string {
	external := s.Spec.ExternalIPs
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return orNone(strings.Join(external, ","))
	case corev1.ServiceTypeLoadBalancer:
		given := sets.New[string]()
		for _, i := range s.Status.LoadBalancer.Ingress {
			if address := orElse(i.IP, i.Hostname); address != "" {
				given.Insert(address)
			}
		}
		return orElse(strings.Join(append(sets.List(given), external...), ","), "<pending>")
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	}
	return "<unknown>"
}
