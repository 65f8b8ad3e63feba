package controllers

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"
)

// slicesFor are the slices of a service: as many as its pods need, one without any if it has none.
func slicesFor(service *corev1.Service, groups []*group) (all []*discoveryv1.EndpointSlice) {
	if len(groups) == 0 {
		groups = []*group{{family: familiesOf(service)[0]}}
	}
	for _, g := range groups {
		parts := slices.Collect(slices.Chunk(g.pods, maxSliceEndpoints))
		if len(parts) == 0 {
			parts = [][]*corev1.Pod{nil}
		}
		for i, part := range parts {
			slice := &discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: service.Namespace, Name: sliceName(service, g, i), Labels: endpointLabels(service),
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(service, corev1.SchemeGroupVersion.WithKind("Service"))},
				},
				AddressType: g.family, Ports: g.ports,
			}
			slice.Labels[discoveryv1.LabelServiceName], slice.Labels[discoveryv1.LabelManagedBy] = service.Name, slicesBy
			for _, pod := range part {
				slice.Endpoints = append(slice.Endpoints, endpointOf(service, pod, g.family))
			}
			all = append(all, slice)
		}
	}
	return all
}

func sliceName(service *corev1.Service, g *group, i int) string {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s %d %s", service.UID, i, groupKey(g.family, g.ports)) // a hash takes everything
	return fmt.Sprintf("%s-%08x", service.Name, h.Sum32())
}

// endpointLabels are the service's own, but for those that the objects with its endpoints use themselves.
func endpointLabels(service *corev1.Service) map[string]string {
	all := maps.Clone(service.Labels)
	if all == nil {
		all = map[string]string{}
	}
	for _, own := range []string{discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy, managedEndpoints, corev1.IsHeadlessService} {
		delete(all, own)
	}
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		all[corev1.IsHeadlessService] = ""
	}
	return all
}

func endpointOf(service *corev1.Service, pod *corev1.Pod, family discoveryv1.AddressType) discoveryv1.Endpoint {
	address, _ := addressOf(pod, family)
	ready, ending := podutil.IsPodReady(pod), pod.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses: []string{address},
		Conditions: discoveryv1.EndpointConditions{
			Ready: ptr.To(service.Spec.PublishNotReadyAddresses || ready && !ending), Serving: ptr.To(ready), Terminating: ptr.To(ending),
		},
		TargetRef: podRef(pod),
	}
	if pod.Spec.NodeName != "" {
		e.NodeName = ptr.To(pod.Spec.NodeName)
	}
	if hostname := hostnameOf(service, pod); hostname != "" {
		e.Hostname = &hostname
	}
	return e
}

func podRef(pod *corev1.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}

// hostnameOf is the name that a pod has in the service's domain.
func hostnameOf(service *corev1.Service, pod *corev1.Pod) string {
	if pod.Spec.Subdomain != service.Name {
		return ""
	}
	return pod.Spec.Hostname
}

// endpointsFor is the same as the slices in the form of yesterday, which has pods that end in no case, and one family.
func endpointsFor(service *corev1.Service, groups []*group) *corev1.Endpoints {
	list := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name, Labels: endpointLabels(service)}}
	list.Labels[managedEndpoints] = endpointsBy
	room := maxAddresses
	for _, g := range groups {
		if g.family != familiesOf(service)[0] {
			continue
		}
		var subset corev1.EndpointSubset
		for _, p := range g.ports {
			subset.Ports = append(subset.Ports, corev1.EndpointPort{Name: *p.Name, Port: *p.Port, Protocol: *p.Protocol, AppProtocol: p.AppProtocol})
		}
		for _, pod := range g.pods {
			if pod.DeletionTimestamp != nil && !service.Spec.PublishNotReadyAddresses {
				continue
			}
			if room--; room < 0 {
				list.Annotations = map[string]string{overCapacity: "truncated"}
				continue
			}
			ip, _ := addressOf(pod, g.family)
			address := corev1.EndpointAddress{IP: ip, Hostname: hostnameOf(service, pod), TargetRef: podRef(pod)}
			if pod.Spec.NodeName != "" {
				address.NodeName = ptr.To(pod.Spec.NodeName)
			}
			if service.Spec.PublishNotReadyAddresses || podutil.IsPodReady(pod) {
				subset.Addresses = append(subset.Addresses, address)
			} else {
				subset.NotReadyAddresses = append(subset.NotReadyAddresses, address)
			}
		}
		if len(subset.Addresses)+len(subset.NotReadyAddresses) > 0 {
			list.Subsets = append(list.Subsets, subset)
		}
	}
	return list
}
