package scheduler

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// amount is a quantity of one resource: thousandths for CPU, whole units for anything else.
type amount struct {
	name  corev1.ResourceName
	value int64
}

// load is the CPU and memory that scores count for a pod: pods that ask for nothing weigh something too, or all of them
// would go to one node.
type load struct {
	cpu, memory int64
}

const (
	assumedCPU    = 100
	assumedMemory = 200 << 20
)

// podRequest is what a pod takes from a node, sorted by name: its containers together, its init containers where they need
// more, its overhead, and one place.
func podRequest(p *corev1.Pod) []amount {
	list := amounts(resource.PodRequests(p, resource.PodResourcesOptions{}))
	list[corev1.ResourcePods] = 1
	request := make([]amount, 0, len(list))
	for name, value := range list {
		if value > 0 {
			request = append(request, amount{name, value})
		}
	}
	slices.SortFunc(request, func(a, b amount) int { return strings.Compare(string(a.name), string(b.name)) })
	return request
}

func amounts(list corev1.ResourceList) map[corev1.ResourceName]int64 {
	values := make(map[corev1.ResourceName]int64, len(list)+1)
	for name, quantity := range list {
		if name == corev1.ResourceCPU {
			values[name] = quantity.MilliValue()
		} else {
			values[name] = quantity.Value()
		}
	}
	return values
}

func weigh(request []amount) load {
	w := load{cpu: assumedCPU, memory: assumedMemory}
	for _, a := range request {
		switch a.name {
		case corev1.ResourceCPU:
			w.cpu = a.value
		case corev1.ResourceMemory:
			w.memory = a.value
		}
	}
	return w
}

// lacking lists the reasons for which a request does not fit a node; none if it does.
func (n *node) lacking(request []amount) []string {
	var reasons []string
	for _, a := range request {
		if a.value <= n.allocatable[a.name]-n.used[a.name] {
			continue
		}
		if a.name == corev1.ResourcePods {
			reasons = append(reasons, "Too many pods")
		} else {
			reasons = append(reasons, "Insufficient "+string(a.name))
		}
	}
	return reasons
}

// port is a host port that a pod occupies on its node.
type port struct {
	ip       string // empty: all addresses
	protocol corev1.Protocol
	number   int32
}

func hostPorts(p *corev1.Pod) []port {
	var ports []port
	add := func(c *corev1.Container) {
		for _, cp := range c.Ports {
			if cp.HostPort > 0 {
				ports = append(ports, newPort(cp))
			}
		}
	}
	for i := range p.Spec.InitContainers {
		// Only an init container that goes on running shares the node with the others.
		if policy := p.Spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			add(&p.Spec.InitContainers[i])
		}
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i])
	}
	return ports
}

func newPort(cp corev1.ContainerPort) port {
	made := port{ip: cp.HostIP, protocol: cp.Protocol, number: cp.HostPort}
	if made.protocol == "" {
		made.protocol = corev1.ProtocolTCP
	}
	if made.ip == "0.0.0.0" || made.ip == "::" {
		made.ip = ""
	}
	return made
}

func (a port) conflicts(b port) bool {
	return a.number == b.number && a.protocol == b.protocol && (a.ip == b.ip || a.ip == "" || b.ip == "")
}

func (n *node) portsFree(wanted []port) bool {
	if len(wanted) == 0 {
		return true
	}
	for _, p := range n.pods {
		for _, taken := range p.ports {
			if slices.ContainsFunc(wanted, taken.conflicts) {
				return false
			}
		}
	}
	return true
}
