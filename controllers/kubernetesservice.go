package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/addresses"
)

// The service by which pods find the API.
const (
	kubernetesService = "kubernetes"
	apiPortName       = "https"
)

// addKubernetesService keeps the service "kubernetes" in the namespace "default", with the first address of the services' network and the
// addresses of all servers behind it. It alone owns these objects.
func (c *Controllers) addKubernetesService() {
	k := key(services, metav1.NamespaceDefault, kubernetesService)
	l := c.newLoop("kubernetes-service", 1, func(ctx context.Context, k store.Key) (time.Duration, error) {
		return 0, c.keepKubernetesService(ctx, k)
	})
	l.add(k)
	own := reader{changed: func(ch *change) {
		if ch.Item.Key.Namespace == k.Namespace && ch.Item.Key.Name == k.Name {
			l.add(k)
		}
	}}
	for _, resource := range []string{services, endpointSlices, endpoints} {
		c.follow(resource, "", own)
	}
	// A server that comes or goes is a node that comes, goes or changes. The service's network comes up once.
	all := reader{changed: func(*change) { l.add(k) }}
	c.follow(nodes, "", all)
	c.follow(serviceCIDRs, "", all)
}

func (c *Controllers) keepKubernetesService(ctx context.Context, k store.Key) error {
	servers, port := c.apiServers()
	if port == 0 {
		return nil
	}
	first, _ := addresses.Bounds(c.serviceNet)
	meta := metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name}
	if _, there := c.reader.Get(k); !there {
		m := meta
		m.Labels = map[string]string{"component": "apiserver", "provider": "kubernetes"}
		_, err := c.client.Create(ctx, &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: first.String(), SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{
				Name: apiPortName, Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(port),
			}},
		}})
		if ignoreExists(err) != nil {
			return fmt.Errorf("create the service %s: %w", k.Name, err)
		}
	}
	slice, list := endpointsOf(meta, servers, port)
	if err := ensure(ctx, c, slice, func(have, want *discoveryv1.EndpointSlice) bool {
		if have.AddressType == want.AddressType && equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) &&
			equality.Semantic.DeepEqual(have.Ports, want.Ports) {
			return false
		}
		have.Endpoints, have.Ports, have.Labels = want.Endpoints, want.Ports, want.Labels
		return true
	}); err != nil {
		return err
	}
	return ensure(ctx, c, list, func(have, want *corev1.Endpoints) bool {
		if equality.Semantic.DeepEqual(have.Subsets, want.Subsets) {
			return false
		}
		have.Subsets = want.Subsets
		return true
	})
}

// apiServers are the addresses of all servers, of one family and with one port, sorted. Those that mean another machine to each who
// reads them, such as loopback, are left out, as endpoints may not have them.
func (c *Controllers) apiServers() (all []netip.Addr, port int32) {
	if c.cfg.Servers == nil {
		return nil, 0
	}
	for _, text := range c.cfg.Servers() {
		s, err := netip.ParseAddrPort(text)
		if err != nil {
			continue
		}
		a := s.Addr().Unmap()
		if port == 0 {
			port = int32(s.Port())
		}
		if int32(s.Port()) != port || !a.IsGlobalUnicast() || len(all) > 0 && a.Is4() != all[0].Is4() {
			continue
		}
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all), port
}

// endpointsOf is the same twice: as programs of today and of yesterday read it.
func endpointsOf(m metav1.ObjectMeta, servers []netip.Addr, port int32) (*discoveryv1.EndpointSlice, *corev1.Endpoints) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: m, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To(apiPortName), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(port)}},
	}
	if len(servers) > 0 && !servers[0].Is4() {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: m.Name}
	list := &corev1.Endpoints{ObjectMeta: m}
	if len(servers) > 0 {
		list.Subsets = []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Name: apiPortName, Port: port, Protocol: corev1.ProtocolTCP}}}}
	}
	list.Labels = map[string]string{discoveryv1.LabelSkipMirror: "true"}
	for _, s := range servers {
		address := s.String()
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
		})
		list.Subsets[0].Addresses = append(list.Subsets[0].Addresses, corev1.EndpointAddress{IP: address})
	}
	return slice, list
}

// ensure makes an object, or has change bring the one that is there to what is wanted; change reports whether anything was to do.
func ensure[T any, P interface {
	*T
	api.Object
}](ctx context.Context, c *Controllers, want P, change func(have, want P) bool,
) error {
	k := store.KeyOf(c.reader, want)
	item, there := c.reader.Get(k)
	if !there {
		_, err := c.client.Create(ctx, want)
		return ignoreExists(err)
	}
	if have, ok := c.reader.Object(item); !ok || !change(have.(P), want) {
		return nil
	}
	_, err := c.client.Modify(ctx, k, "", func(obj api.Object) error {
		change(obj.(P), want)
		return nil
	})
	return ignoreGone(err)
}
