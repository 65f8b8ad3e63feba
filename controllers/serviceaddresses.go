package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/addresses"
)

// What upstream calls the network that a cluster begins with, and what holds a network back while addresses of it are in use.
const (
	firstServiceCIDR     = "kubernetes"
	serviceCIDRFinalizer = "networking.k8s.io/service-cidr-finalizer"
)

// addServiceAddresses keeps the ServiceCIDRs, and puts right what people did to IPAddresses: one that a service has is there, and one
// whose service has gone, or has another, is not. Admission alone allocates.
func (c *Controllers) addServiceAddresses() {
	networks := c.newLoop("service-cidrs", 1, c.keepServiceCIDR)
	networks.add(key(serviceCIDRs, "", firstServiceCIDR))
	c.follow(serviceCIDRs, "", keys(networks))
	used := c.newLoop("service-addresses", 1, c.keepServiceAddress)
	c.follow(services, "", each(func(s *corev1.Service, deleted bool) {
		if !deleted {
			used.add(key(services, s.Namespace, s.Name))
			return
		}
		for _, address := range s.Spec.ClusterIPs {
			used.add(addresses.Key(address))
		}
	}))
	c.follow(addresses.Resource, "", reader{changed: func(ch *change) {
		used.add(ch.Item.Key)
		if ch.deleted() {
			c.addAll(networks, serviceCIDRs) // one of them may have waited for this
		}
	}})
}

func (c *Controllers) keepServiceCIDR(ctx context.Context, k store.Key) (time.Duration, error) {
	network, ok := store.Get[networkingv1.ServiceCIDR](c.reader, "", k.Name)
	if !ok {
		if k.Name != firstServiceCIDR {
			return 0, nil
		}
		_, err := c.client.Create(ctx, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: firstServiceCIDR, Finalizers: []string{serviceCIDRFinalizer}},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{c.serviceNet.String()}},
		})
		return 0, ignoreExists(err)
	}
	ready := metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Reason: "NetworkReady",
		Message: "Kubernetes Service CIDR is ready", LastTransitionTime: metav1.NewTime(c.now()),
	}
	held := slices.Contains(network.Finalizers, serviceCIDRFinalizer)
	switch {
	case network.DeletionTimestamp == nil && !held:
		return 0, c.holdServiceCIDR(ctx, k, true)
	case network.DeletionTimestamp != nil && !held:
		return 0, nil
	case network.DeletionTimestamp != nil && !c.needsServiceCIDR(network):
		return 0, c.holdServiceCIDR(ctx, k, false)
	case network.DeletionTimestamp != nil:
		ready.Status, ready.Reason = metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating
		ready.Message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
	}
	if is := meta.FindStatusCondition(network.Status.Conditions, ready.Type); is != nil && is.Status == ready.Status && is.Message == ready.Message {
		return 0, nil
	}
	_, err := c.client.Modify(ctx, k, "status", func(obj api.Object) error {
		meta.SetStatusCondition(&obj.(*networkingv1.ServiceCIDR).Status.Conditions, ready)
		return nil
	})
	return 0, ignoreGone(err)
}

func (c *Controllers) holdServiceCIDR(ctx context.Context, k store.Key, hold bool) error {
	_, err := c.client.Modify(ctx, k, "", func(obj api.Object) error {
		others := slices.DeleteFunc(obj.GetFinalizers(), func(f string) bool { return f == serviceCIDRFinalizer })
		if hold {
			others = append(others, serviceCIDRFinalizer)
		}
		obj.SetFinalizers(others)
		return nil
	})
	return ignoreGone(err)
}

// needsServiceCIDR reports whether an address is in use that is in no other network.
func (c *Controllers) needsServiceCIDR(network *networkingv1.ServiceCIDR) bool {
	contains := func(s *networkingv1.ServiceCIDR, a netip.Addr) bool {
		return slices.ContainsFunc(s.Spec.CIDRs, func(text string) bool {
			p, err := netip.ParsePrefix(text)
			return err == nil && p.Contains(a)
		})
	}
	others := slices.DeleteFunc(store.List[networkingv1.ServiceCIDR](c.reader, ""), func(s *networkingv1.ServiceCIDR) bool {
		return s.Name == network.Name || s.DeletionTimestamp != nil
	})
	items, _ := c.reader.List(addresses.Resource, "")
	return slices.ContainsFunc(items, func(item store.Item) bool {
		a, err := netip.ParseAddr(item.Key.Name)
		return err == nil && contains(network, a) &&
			!slices.ContainsFunc(others, func(s *networkingv1.ServiceCIDR) bool { return contains(s, a) })
	})
}

// keepServiceAddress looks at a service or at an address.
func (c *Controllers) keepServiceAddress(ctx context.Context, k store.Key) (time.Duration, error) {
	if k.Resource == services {
		if s, ok := store.Get[corev1.Service](c.reader, k.Namespace, k.Name); ok {
			return 0, c.writeDown(ctx, s)
		}
		return 0, nil
	}
	a, ok := store.Get[networkingv1.IPAddress](c.reader, "", k.Name)
	if !ok {
		for _, s := range store.List[corev1.Service](c.reader, "") {
			if slices.Contains(s.Spec.ClusterIPs, k.Name) {
				return 0, c.writeDown(ctx, s)
			}
		}
		return 0, nil
	}
	namespace, name, ok := addresses.Owner(a)
	if !ok || !addresses.Ours(a) {
		return 0, nil
	}
	if s, there := store.Get[corev1.Service](c.reader, namespace, name); there && slices.Contains(s.Spec.ClusterIPs, k.Name) {
		return 0, nil
	}
	_, err := c.client.Delete(ctx, k, metav1.NewRVDeletionPrecondition(a.ResourceVersion))
	if apierrors.IsConflict(err) {
		return 0, nil
	}
	return 0, ignoreGone(err)
}

// writeDown makes the objects of a service's addresses that are missing, and tells if one is somebody else's.
func (c *Controllers) writeDown(ctx context.Context, s *corev1.Service) error {
	for _, text := range s.Spec.ClusterIPs {
		if _, err := netip.ParseAddr(text); err != nil {
			continue // there is none
		}
		if have, there := store.Get[networkingv1.IPAddress](c.reader, "", text); there {
			if !addresses.Belongs(have, s) {
				c.recorder.eventf(s, corev1.EventTypeWarning, "ClusterIPAlreadyAllocated", "Cluster IP [%v]:%s was assigned to multiple services; please recreate service",
					s.Spec.IPFamilies, text)
			}
			continue
		}
		if _, err := c.client.Create(ctx, addresses.Of(s, text)); ignoreExists(err) != nil {
			return fmt.Errorf("write down the address %s: %w", text, err)
		}
	}
	return nil
}
