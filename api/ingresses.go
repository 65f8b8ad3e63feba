package api

import (
	"fmt"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingv1defaults "k8s.io/kubernetes/pkg/apis/networking/v1"
	"k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/utils/ptr"
)

// annotationIngressClass is how an ingress named its class before it had a field for it.
const annotationIngressClass = "kubernetes.io/ingress.class"

func ingresses() *Kind {
	return install[networkingv1.Ingress](&Kind{
		GVK:          networkingv1.SchemeGroupVersion.WithKind("Ingress"),
		Resource:     "ingresses",
		ShortNames:   []string{"ing"},
		Namespaced:   true,
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &networkingv1.IngressList{} },
		Columns: []Column{
			nameColumn(), text("Class", "The name of the IngressClass resource that should be used for additional configuration"),
			text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
			text("Address", "Address is a list containing ingress points for the load-balancer"),
			text("Ports", "Ports of TLS configurations that open"), ageColumn(),
		},
	}, strategy[networkingv1.Ingress, networking.Ingress]{
		in:     networkingv1defaults.Convert_v1_Ingress_To_networking_Ingress,
		out:    networkingv1defaults.Convert_networking_Ingress_To_v1_Ingress,
		row:    ingressRow,
		create: func(n *networking.Ingress) { n.Status, n.Generation = networking.IngressStatus{}, 1 },
		update: func(n, o *networking.Ingress) {
			n.Status, n.Generation = o.Status, nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status:         func(n, o *networking.Ingress) { n.Spec = o.Spec },
		validate:       validation.ValidateIngressCreate,
		validateUpdate: validation.ValidateIngressUpdate,
		validateStatus: validation.ValidateIngressStatusUpdate,
		declared:       networkingv1defaults.Validate_Ingress,
		warn: func(n, o *networking.Ingress) []string {
			if _, old := n.Annotations[annotationIngressClass]; o == nil && old && n.Spec.IngressClassName == nil {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", annotationIngressClass)}
			}
			return nil
		},
	})
}

func ingressRow(i *networkingv1.Ingress, now time.Time) []any {
	addresses := sets.New[string]()
	for _, a := range i.Status.LoadBalancer.Ingress {
		if address := orElse(a.IP, a.Hostname); address != "" {
			addresses.Insert(address)
		}
	}
	ports := "80"
	if len(i.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	return []any{
		i.Name, ptr.Deref(i.Spec.IngressClassName, "<none>"), ingressHosts(i.Spec.Rules), strings.Join(sets.List(addresses), ","), ports,
		age(i, now),
	}
}

// ingressHosts are the first hosts of the rules. Rules without one count among those that are left out, as upstream has it.
func ingressHosts(rules []networkingv1.IngressRule) string {
	const most = 3
	var hosts []string
	for _, r := range rules {
		if len(hosts) == most {
			return fmt.Sprintf("%s + %d more...", strings.Join(hosts, ","), len(rules)-most)
		}
		if r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	return orElse(strings.Join(hosts, ","), "*")
}
