package api

import (
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingv1defaults "k8s.io/kubernetes/pkg/apis/networking/v1"
	"k8s.io/kubernetes/pkg/apis/networking/validation"
)

func networkPolicies() *Kind {
	return install[networkingv1.NetworkPolicy](&Kind{
		GVK:        networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
		Resource:   "networkpolicies",
		ShortNames: []string{"netpol"},
		Namespaced: true,
		NewList:    func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
		Columns: []Column{
			nameColumn(), text("Pod-Selector", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]), ageColumn(),
		},
	}, strategy[networkingv1.NetworkPolicy, networking.NetworkPolicy]{
		in:       networkingv1defaults.Convert_v1_NetworkPolicy_To_networking_NetworkPolicy,
		out:      networkingv1defaults.Convert_networking_NetworkPolicy_To_v1_NetworkPolicy,
		defaults: networkingv1defaults.SetObjectDefaults_NetworkPolicy,
		row: func(p *networkingv1.NetworkPolicy, now time.Time) []any {
			return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), age(p, now)}
		},
		create: func(n *networking.NetworkPolicy) { n.Generation = 1 },
		update: func(n, o *networking.NetworkPolicy) {
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		validate: func(n *networking.NetworkPolicy) field.ErrorList {
			return validation.ValidateNetworkPolicy(n, validation.ValidationOptionsForNetworking(n, nil))
		},
		validateUpdate: func(n, o *networking.NetworkPolicy) field.ErrorList {
			return validation.ValidateNetworkPolicyUpdate(n, o, validation.ValidationOptionsForNetworking(n, o))
		},
		declared: networkingv1defaults.Validate_NetworkPolicy,
		warn:     func(n, _ *networking.NetworkPolicy) []string { return networkPolicyWarnings(n) },
	})
}

// networkPolicyWarnings tells of address blocks that are written in a way that others may read otherwise.
func networkPolicyWarnings(p *networking.NetworkPolicy) []string {
	var w []string
	warn := func(path *field.Path, peers []networking.NetworkPolicyPeer) {
		for i, peer := range peers {
			if peer.IPBlock == nil {
				continue
			}
			block := path.Index(i).Child("ipBlock")
			w = append(w, utilvalidation.GetWarningsForCIDR(block.Child("cidr"), peer.IPBlock.CIDR)...)
			for j, except := range peer.IPBlock.Except {
				w = append(w, utilvalidation.GetWarningsForCIDR(block.Child("except").Index(j), except)...)
			}
		}
	}
	for i, rule := range p.Spec.Ingress {
		warn(field.NewPath("spec", "ingress").Index(i).Child("from"), rule.From)
	}
	for i, rule := range p.Spec.Egress {
		warn(field.NewPath("spec", "egress").Index(i).Child("to"), rule.To)
	}
	return w
}
