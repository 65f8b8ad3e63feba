package controllers

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/addresses"
)

func TestKubernetesService(t *testing.T) {
	inCluster(t, 1, func(c *cluster) {
		s, _ := store.Get[corev1.Service](c.durable, "default", "kubernetes")
		if s == nil || s.Spec.ClusterIP != "10.43.0.1" || s.Spec.Ports[0].TargetPort.IntValue() != 6443 {
			t.Fatalf("%+v", s)
		}
		addressesOf := func() []string {
			slice, _ := store.Get[discoveryv1.EndpointSlice](c.durable, "default", "kubernetes")
			var all []string
			for _, e := range slice.Endpoints {
				all = append(all, e.Addresses...)
			}
			return all
		}
		if diff := cmp.Diff([]string{"192.0.2.1", "192.0.2.2"}, addressesOf()); diff != "" {
			t.Error(diff)
		}
		c.setServers("192.0.2.2:6443", "192.0.2.3:6443", "not-an-address:6443")
		c.addDevice("n9")
		c.settle()
		if diff := cmp.Diff([]string{"192.0.2.2", "192.0.2.3"}, addressesOf()); diff != "" {
			t.Error(diff)
		}
		k := key(services, "default", "kubernetes")
		if _, err := c.client.Delete(c.ctx, k, nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if _, there := c.durable.Get(k); !there {
			t.Error("it is not made anew")
		}
	})
}

func TestServiceAddressesArePutRight(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}, Spec: corev1.ServiceSpec{
			ClusterIP: "10.43.0.9", Ports: []corev1.ServicePort{{Port: 80}},
		}}
		if _, err := c.client.Create(c.ctx, s); err != nil { // the clients of this test allocate nothing
			t.Fatal(err)
		}
		c.settle()
		k := addresses.Key("10.43.0.9")
		a, there := store.Get[networkingv1.IPAddress](c.durable, "", k.Name)
		if !there || !addresses.Belongs(a, s) {
			t.Fatalf("%+v", a)
		}
		if _, err := c.client.Delete(c.ctx, k, nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if _, there := c.durable.Get(k); !there {
			t.Error("an address in use is not written down again")
		}
		if _, err := c.client.Delete(c.ctx, key(services, "default", "s"), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.client.Create(c.ctx, addresses.Of(s, "10.43.0.10")); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if _, there := c.durable.Get(addresses.Key("10.43.0.10")); there {
			t.Error("an address of no service stays")
		}
	})
}

func TestServiceCIDRs(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		state := func(name string) (held bool, ready metav1.ConditionStatus) {
			n, ok := store.Get[networkingv1.ServiceCIDR](c.durable, "", name)
			if !ok {
				return false, "gone"
			}
			if r := meta.FindStatusCondition(n.Status.Conditions, "Ready"); r != nil {
				ready = r.Status
			}
			return slices.Contains(n.Finalizers, serviceCIDRFinalizer), ready
		}
		if held, ready := state("kubernetes"); !held || ready != "True" {
			t.Errorf("%v %s", held, ready)
		}
		more := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.44.0.0/24"}}}
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}, Spec: corev1.ServiceSpec{
			ClusterIP: "10.44.0.9", Ports: []corev1.ServicePort{{Port: 80}},
		}}
		for _, o := range []api.Object{more, s} {
			if _, err := c.client.Create(c.ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		c.settle()
		if _, err := c.client.Delete(c.ctx, key(serviceCIDRs, "", "more"), nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if held, ready := state("more"); !held || ready != "False" {
			t.Errorf("with an address in use: %v %s", held, ready)
		}
		if _, err := c.client.Delete(c.ctx, key(services, "default", "s"), nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if _, ready := state("more"); ready != "gone" {
			t.Errorf("without: %s", ready)
		}
	})
}
