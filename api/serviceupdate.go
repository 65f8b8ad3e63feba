package api

import (
	"slices"

	serviceapi "k8s.io/kubernetes/pkg/api/service"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/utils/ptr"
)

// prepareServiceUpdate makes of an update what its author means: what was allocated stays although he did not repeat it, and
// what the service's new type has no use for goes although he did not take it away.
func prepareServiceUpdate(n, o *core.Service) {
	n.Status = o.Status
	keepAllocated(n, o)
	syncClusterIPs(n, o)
	dropUnused(n, o)
	settleTraffic(n)
}

// settleTraffic takes away a policy for traffic from within that a mere name has no use for.
func settleTraffic(n *core.Service) {
	if n.Spec.Type == core.ServiceTypeExternalName {
		n.Spec.InternalTrafficPolicy = nil
	}
}

// keepAllocated fills in the addresses and ports that the update leaves empty.
func keepAllocated(n, o *core.Service) {
	if hasClusterIP(o) && hasClusterIP(n) {
		if n.Spec.ClusterIP == "" {
			n.Spec.ClusterIP = o.Spec.ClusterIP
		}
		if len(n.Spec.ClusterIPs) == 0 {
			n.Spec.ClusterIPs = o.Spec.ClusterIPs
		}
	}
	if allocatesNodePorts(o) && allocatesNodePorts(n) {
		keepNodePorts(n.Spec.Ports, o.Spec.Ports)
	}
	if serviceapi.NeedsHealthCheck(o) && serviceapi.NeedsHealthCheck(n) && n.Spec.HealthCheckNodePort == 0 {
		n.Spec.HealthCheckNodePort = o.Spec.HealthCheckNodePort
	}
}

// keepNodePorts gives each port without a node port the one that the older port of its name had, unless another has it now.
func keepNodePorts(newer, older []core.ServicePort) {
	taken, had := nodePorts(newer), map[string]int32{}
	for _, p := range older {
		had[p.Name] = p.NodePort
	}
	for i := range newer {
		if p := &newer[i]; p.NodePort == 0 && !taken[had[p.Name]] {
			p.NodePort = had[p.Name]
		}
	}
}

func nodePorts(ports []core.ServicePort) map[int32]bool {
	set := map[int32]bool{}
	for _, p := range ports {
		if p.NodePort != 0 {
			set[p.NodePort] = true
		}
	}
	return set
}

// syncClusterIPs lets the list follow the single address when only that one was changed.
func syncClusterIPs(n, o *core.Service) {
	same := slices.Equal(n.Spec.ClusterIPs, o.Spec.ClusterIPs)
	switch {
	case len(n.Spec.ClusterIPs) == 0 && n.Spec.ClusterIP == o.Spec.ClusterIP:
		n.Spec.ClusterIPs = o.Spec.ClusterIPs
	case n.Spec.ClusterIP == o.Spec.ClusterIP || !same:
	case n.Spec.ClusterIP == "":
		n.Spec.ClusterIPs = nil
	default:
		n.Spec.ClusterIPs = []string{n.Spec.ClusterIP}
	}
}

// dropUnused takes away what only the older type had a use for, unless the update changes it too: then validation refuses it.
func dropUnused(n, o *core.Service) {
	if hasClusterIP(o) && !hasClusterIP(n) {
		if n.Spec.ClusterIP == o.Spec.ClusterIP && slices.Equal(n.Spec.ClusterIPs, o.Spec.ClusterIPs) {
			n.Spec.ClusterIP, n.Spec.ClusterIPs = "", nil
		}
		if slices.Equal(n.Spec.IPFamilies, o.Spec.IPFamilies) {
			n.Spec.IPFamilies = nil
		}
		if ptr.Equal(n.Spec.IPFamilyPolicy, o.Spec.IPFamilyPolicy) {
			n.Spec.IPFamilyPolicy = nil
		}
	}
	if hasNodePort(o) && !hasNodePort(n) && addsNoNodePort(n, o) {
		for i := range n.Spec.Ports {
			n.Spec.Ports[i].NodePort = 0
		}
	}
	if serviceapi.NeedsHealthCheck(o) && !serviceapi.NeedsHealthCheck(n) && n.Spec.HealthCheckNodePort == o.Spec.HealthCheckNodePort {
		n.Spec.HealthCheckNodePort = 0
	}
	if o.Spec.Type == core.ServiceTypeLoadBalancer && n.Spec.Type != core.ServiceTypeLoadBalancer {
		if ptr.Equal(n.Spec.AllocateLoadBalancerNodePorts, o.Spec.AllocateLoadBalancerNodePorts) {
			n.Spec.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(n.Spec.LoadBalancerClass, o.Spec.LoadBalancerClass) {
			n.Spec.LoadBalancerClass = nil
		}
	}
	if serviceapi.ExternallyAccessible(o) && !serviceapi.ExternallyAccessible(n) &&
		n.Spec.ExternalTrafficPolicy == o.Spec.ExternalTrafficPolicy {
		n.Spec.ExternalTrafficPolicy = ""
	}
	if n.Spec.Type != core.ServiceTypeLoadBalancer {
		n.Status.LoadBalancer = core.LoadBalancerStatus{}
	}
}

func addsNoNodePort(n, o *core.Service) bool {
	had := nodePorts(o.Spec.Ports)
	for port := range nodePorts(n.Spec.Ports) {
		if !had[port] {
			return false
		}
	}
	return true
}

func hasClusterIP(s *core.Service) bool { return s.Spec.Type != core.ServiceTypeExternalName }

func hasNodePort(s *core.Service) bool {
	return s.Spec.Type == core.ServiceTypeNodePort || s.Spec.Type == core.ServiceTypeLoadBalancer
}

// allocatesNodePorts leaves out load balancers that reach pods without node ports.
func allocatesNodePorts(s *core.Service) bool {
	return s.Spec.Type == core.ServiceTypeNodePort ||
		s.Spec.Type == core.ServiceTypeLoadBalancer && ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true)
}
