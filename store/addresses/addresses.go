// Package addresses owns how the addresses of services are written down: an IPAddress object, named like the address, that names the
// service as its parent. What is there is taken.
package addresses

import (
	"math/big"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/store"
)

// Resource is the key of IPAddresses in the store.
const Resource = "ipaddresses.networking.k8s.io"

// managedBy is what upstream's allocator calls itself; tools look for it.
const managedBy = "ipallocator.k8s.io"

// Key is the key of an address.
func Key(address string) store.Key { return store.Key{Resource: Resource, Name: address} }

// Of is the object of a service's address.
func Of(s *corev1.Service, address string) *networkingv1.IPAddress {
	family := corev1.IPv4Protocol
	if a, err := netip.ParseAddr(address); err == nil && !a.Is4() {
		family = corev1.IPv6Protocol
	}
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: address, Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family), networkingv1.LabelManagedBy: managedBy,
		}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
			Resource: "services", Namespace: s.Namespace, Name: s.Name,
		}},
	}
}

// Belongs reports whether an address is that of a service.
func Belongs(a *networkingv1.IPAddress, s *corev1.Service) bool {
	namespace, name, ok := Owner(a)
	return ok && namespace == s.Namespace && name == s.Name
}

// Owner is the service that has an address; ok is false if it is somebody else's.
func Owner(a *networkingv1.IPAddress) (namespace, name string, ok bool) {
	ref := a.Spec.ParentRef
	if ref == nil || ref.Group != "" || ref.Resource != "services" {
		return "", "", false
	}
	return ref.Namespace, ref.Name, true
}

// Ours reports whether an address was written down by the allocator, not by a person.
func Ours(a *networkingv1.IPAddress) bool { return a.Labels[networkingv1.LabelManagedBy] == managedBy }

// Bounds are the first and the last address of a network that can be given out: not that of the network itself, nor, of IPv4, the one
// that all hear.
func Bounds(network netip.Prefix) (first, last netip.Addr) {
	network = network.Masked()
	bytes := network.Addr().AsSlice()
	for bit := network.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ = netip.AddrFromSlice(bytes)
	if last.Is4() {
		last = last.Prev()
	}
	return network.Addr().Next(), last
}

// Distance is how many steps it is from one address to another.
func Distance(from, to netip.Addr) *big.Int {
	a, b := new(big.Int).SetBytes(from.AsSlice()), new(big.Int).SetBytes(to.AsSlice())
	return b.Sub(b, a)
}

// Offset is the address n steps behind another, of the same family; it is not to be behind the last one.
func Offset(from netip.Addr, n *big.Int) netip.Addr {
	sum := new(big.Int).Add(new(big.Int).SetBytes(from.AsSlice()), n)
	bytes := make([]byte, from.BitLen()/8)
	at, _ := netip.AddrFromSlice(sum.FillBytes(bytes))
	return at
}
