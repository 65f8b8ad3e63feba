package quota

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper"

	"github.com/shoal-edge/shoal/api"
)

// Names are those names of a quota that objects of a kind use, sorted.
func Names(kind *api.Kind, hard corev1.ResourceList) []corev1.ResourceName {
	var names []corev1.ResourceName
	counts := countNames(kind)
	for name := range hard {
		if slices.Contains(counts, name) || uses(kind.GroupResource(), name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func uses(resource string, name corev1.ResourceName) bool {
	switch resource {
	case pods:
		switch name {
		case corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
			corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
			corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
			return true
		}
		text := string(name)
		return strings.HasPrefix(text, corev1.ResourceHugePagesPrefix) || strings.HasPrefix(text, corev1.ResourceRequestsHugePagesPrefix) ||
			strings.HasPrefix(text, corev1.DefaultResourceRequestsPrefix) && !helper.IsNativeResource(name)
	case services:
		return name == corev1.ResourceServices || name == corev1.ResourceServicesNodePorts || name == corev1.ResourceServicesLoadBalancers
	case claims:
		_, own, of := strings.Cut(string(name), classSuffix)
		if !of {
			own = string(name)
		}
		return own == string(corev1.ResourcePersistentVolumeClaims) || own == string(corev1.ResourceRequestsStorage)
	}
	return false
}

// Missing is what containers of a pod must ask for because a quota limits it, and do not: the containers' names by what they miss. It is
// for processors and memory only, and not for pods that ask for something as a whole.
func Missing(p *corev1.Pod, limited []corev1.ResourceName) map[corev1.ResourceName][]string {
	if r := p.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return nil
	}
	missing := map[corev1.ResourceName][]string{}
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		has := compute(c.Resources.Requests, c.Resources.Limits)
		for _, name := range limited {
			switch name {
			case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
				corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory:
				if _, ok := has[name]; !ok {
					missing[name] = append(missing[name], c.Name)
				}
			}
		}
	}
	return missing
}
