package controllers

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// group is pods that serve with the same ports and addresses of one family.
type group struct {
	family discoveryv1.AddressType
	ports  []discoveryv1.EndpointPort
	pods   []*corev1.Pod
}

// groupsOf sorts the pods by where in them the service's ports lead, which for named ports may differ.
func groupsOf(service *corev1.Service, matching []*corev1.Pod) []*group {
	byKey := map[string]*group{}
	for _, pod := range matching {
		ports := portsOf(service, pod)
		for _, family := range familiesOf(service) {
			if _, ok := addressOf(pod, family); !ok {
				continue
			}
			k := groupKey(family, ports)
			if byKey[k] == nil {
				byKey[k] = &group{family: family, ports: ports}
			}
			byKey[k].pods = append(byKey[k].pods, pod)
		}
	}
	var all []*group
	for _, k := range slices.Sorted(maps.Keys(byKey)) {
		all = append(all, byKey[k])
	}
	return all
}

// groupKey tells groups apart.
func groupKey(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	k := string(family)
	for _, p := range ports {
		k += fmt.Sprintf("|%s %s %d %s", *p.Name, *p.Protocol, *p.Port, ptr.Deref(p.AppProtocol, ""))
	}
	return k
}

// familiesOf are the families of addresses that a service serves.
func familiesOf(service *corev1.Service) []discoveryv1.AddressType {
	var all []discoveryv1.AddressType
	for _, f := range service.Spec.IPFamilies {
		all = append(all, discoveryv1.AddressType(f))
	}
	if len(all) == 0 {
		all = append(all, discoveryv1.AddressTypeIPv4)
	}
	return all
}

// addressOf is the address of a pod in a family.
func addressOf(pod *corev1.Pod, family discoveryv1.AddressType) (string, bool) {
	for _, ip := range append([]corev1.PodIP{{IP: pod.Status.PodIP}}, pod.Status.PodIPs...) {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is4() == (family == discoveryv1.AddressTypeIPv4) {
			return ip.IP, true
		}
	}
	return "", false
}

// portsOf is where the service's ports lead in a pod. One that the pod does not have is left out.
func portsOf(service *corev1.Service, pod *corev1.Pod) (all []discoveryv1.EndpointPort) {
	for _, p := range service.Spec.Ports {
		if number, ok := targetPort(pod, p); ok {
			all = append(all, discoveryv1.EndpointPort{
				Name: ptr.To(p.Name), Protocol: ptr.To(cmp.Or(p.Protocol, corev1.ProtocolTCP)), Port: ptr.To(number), AppProtocol: p.AppProtocol,
			})
		}
	}
	return all
}

func targetPort(pod *corev1.Pod, p corev1.ServicePort) (int32, bool) {
	if p.TargetPort.Type == intstr.Int {
		return cmp.Or(p.TargetPort.IntVal, p.Port), true
	}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, port := range container.Ports {
			if port.Name == p.TargetPort.StrVal && cmp.Or(port.Protocol, corev1.ProtocolTCP) == cmp.Or(p.Protocol, corev1.ProtocolTCP) {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}
