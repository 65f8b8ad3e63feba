package controllers

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/store"
)

const (
	// maxSliceEndpoints and maxAddresses are upstream's bounds of an EndpointSlice and of an Endpoints object.
	maxSliceEndpoints = 100
	maxAddresses      = 1000
	// slicesBy and endpointsBy are the names under which upstream's controllers keep these objects: others leave them alone.
	slicesBy    = "endpointslice-controller.k8s.io"
	endpointsBy = "endpoint-controller"
	// managedEndpoints is the label of an Endpoints object with that name.
	managedEndpoints = "endpoints.kubernetes.io/managed-by"
	// overCapacity is the annotation of an Endpoints object that has not all.
	overCapacity = "endpoints.kubernetes.io/over-capacity"
)

// addEndpoints keeps, for every Service that selects pods, which of them are behind it: as EndpointSlices, and as an Endpoints object for
// programs of yesterday.
func (c *Controllers) addEndpoints() {
	l := c.newLoop("endpoints", 1, func(ctx context.Context, k store.Key) (time.Duration, error) { return 0, c.keepEndpoints(ctx, k) })
	c.follow(services, "", keys(l))
	own := reader{changed: func(ch *change) {
		if name := ch.metadata().Labels[discoveryv1.LabelServiceName]; name != "" {
			l.add(key(services, ch.Item.Key.Namespace, name))
		}
	}}
	c.follow(endpointSlices, "", own)
	c.follow(endpoints, "", reader{changed: func(ch *change) { l.add(key(services, ch.Item.Key.Namespace, ch.Item.Key.Name)) }})

	seen := map[store.Key]facts{}
	pod := each(func(pod *corev1.Pod, deleted bool) {
		k := key(pods, pod.Namespace, pod.Name)
		before, known := seen[k]
		now := factsOf(pod)
		if deleted {
			delete(seen, k)
		} else if seen[k] = now; known && before == now {
			return
		}
		for _, s := range store.List[corev1.Service](c.reader, pod.Namespace) {
			if known && before.labels != now.labels || labels.SelectorFromValidatedSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				l.add(key(services, s.Namespace, s.Name))
			}
		}
	})
	pod.relist = func() { clear(seen) }
	c.follow(pods, "", pod)
}

// facts is what endpoints show of a pod, as far as needed to see whether it has changed.
type facts struct{ labels, rest uint64 }

func factsOf(pod *corev1.Pod) facts {
	sum := func(parts ...string) uint64 {
		h := fnv.New64a()
		for _, part := range parts {
			_, _ = h.Write(append([]byte(part), 0)) // a hash takes everything
		}
		return h.Sum64()
	}
	rest := []string{pod.Spec.NodeName, pod.Spec.Hostname, pod.Spec.Subdomain, string(pod.UID), fmt.Sprint(behind(pod), podutil.IsPodReady(pod), pod.DeletionTimestamp != nil)}
	for _, ip := range pod.Status.PodIPs {
		rest = append(rest, ip.IP)
	}
	return facts{sum(labels.Set(pod.Labels).String()), sum(rest...)}
}

// behind reports whether a pod can be behind a service, now or when it is ready.
func behind(pod *corev1.Pod) bool {
	return pod.Status.PodIP != "" && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// group is pods that serve with the same ports and addresses of one family.
type group struct {
	family discoveryv1.AddressType
	ports  []discoveryv1.EndpointPort
	pods   []*corev1.Pod
}

func (c *Controllers) keepEndpoints(ctx context.Context, k store.Key) error {
	service, ok := store.Get[corev1.Service](c.reader, k.Namespace, k.Name)
	switch {
	case !ok:
		return c.dropEndpoints(ctx, k) // its slices are garbage
	case len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName || service.DeletionTimestamp != nil:
		return nil
	}
	chosen := labels.SelectorFromValidatedSet(service.Spec.Selector)
	var matching []*corev1.Pod
	for _, pod := range store.List[corev1.Pod](c.reader, k.Namespace) {
		if behind(pod) && chosen.Matches(labels.Set(pod.Labels)) {
			matching = append(matching, pod)
		}
	}
	groups := groupsOf(service, matching)
	if err := c.keepSlices(ctx, service, groups); err != nil {
		return err
	}
	return ensure(ctx, c, endpointsFor(service, groups), func(have, want *corev1.Endpoints) bool {
		if equality.Semantic.DeepEqual(have.Subsets, want.Subsets) && maps.Equal(have.Labels, want.Labels) &&
			have.Annotations[overCapacity] == want.Annotations[overCapacity] {
			return false
		}
		have.Subsets, have.Labels = want.Subsets, want.Labels
		if have.Annotations == nil {
			have.Annotations = map[string]string{}
		}
		delete(have.Annotations, overCapacity)
		maps.Copy(have.Annotations, want.Annotations)
		return true
	})
}

// dropEndpoints deletes the Endpoints object of a service that has gone, if it was kept here.
func (c *Controllers) dropEndpoints(ctx context.Context, k store.Key) error {
	list, ok := store.Get[corev1.Endpoints](c.reader, k.Namespace, k.Name)
	if !ok || list.Labels[managedEndpoints] != endpointsBy {
		return nil
	}
	_, err := c.client.Delete(ctx, key(endpoints, k.Namespace, k.Name), &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &list.UID}})
	return ignoreGone(err)
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

// keepSlices brings the slices of a service to what its groups say. Their names say what is in them, so a new leader goes on with them.
func (c *Controllers) keepSlices(ctx context.Context, service *corev1.Service, groups []*group) error {
	wanted := map[string]bool{}
	for _, slice := range slicesFor(service, groups) {
		wanted[slice.Name] = true
		if err := ensure(ctx, c, slice, func(have, want *discoveryv1.EndpointSlice) bool {
			if equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(have.Ports, want.Ports) &&
				maps.Equal(have.Labels, want.Labels) {
				return false
			}
			have.Endpoints, have.Ports, have.Labels = want.Endpoints, want.Ports, want.Labels
			return true
		}); err != nil {
			return fmt.Errorf("keep the endpoints: %w", err)
		}
	}
	for _, slice := range store.ListBy[discoveryv1.EndpointSlice](c.reader, "owner", string(service.UID)) {
		if slice.Labels[discoveryv1.LabelManagedBy] != slicesBy || wanted[slice.Name] {
			continue
		}
		if _, err := c.client.Delete(ctx, key(endpointSlices, slice.Namespace, slice.Name), nil); ignoreGone(err) != nil {
			return fmt.Errorf("drop endpoints: %w", err)
		}
	}
	return nil
}

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
