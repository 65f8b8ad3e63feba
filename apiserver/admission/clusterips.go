package admission

import (
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/addresses"
)

// Why an address cannot be had, in upstream's words.
var (
	errAllocated = errors.New("provided IP is already allocated")
	errElsewhere = errors.New("the provided network does not match the current range")
)

// setAddresses gives a service the address that it asks for, or a free one, and lets go of those that it has no use for any more.
func (al *allocator) setAddresses(a *store.Admission, s, older *corev1.Service) error {
	if older != nil {
		for _, op := range released(a.Reader, older, s) {
			a.Also(op)
		}
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName || isHeadless(s) || len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone {
		return nil
	}
	wanted := s.Spec.ClusterIPs
	if older != nil && older.Spec.Type != corev1.ServiceTypeExternalName && len(older.Spec.ClusterIPs) > 0 {
		return nil // it keeps what it has; validation refuses another
	}
	if len(wanted) > 0 && wanted[0] != "" {
		if err := al.free(a.Reader, wanted[0]); err != nil {
			return invalidService(s, field.Invalid(field.NewPath("spec", "clusterIPs"), wanted, fmt.Sprintf("failed to allocate IP %v: %v", wanted[0], err)))
		}
		return al.take(a, s, wanted[0])
	}
	address, ok := al.next(a.Reader)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: range is full", s.Name))
	}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = address.String(), []string{address.String()}
	return al.take(a, s, address.String())
}

// take adds the IPAddress of a service to its transaction. It is expected not to be there.
func (al *allocator) take(a *store.Admission, s *corev1.Service, address string) error {
	made := addresses.Of(s, address)
	made.UID, made.CreationTimestamp = types.UID(uuid.NewString()), s.CreationTimestamp
	if made.CreationTimestamp.IsZero() {
		made.CreationTimestamp = metav1.Now()
	}
	value, err := api.Encode(made)
	if err != nil {
		return err
	}
	a.Also(store.Op{Key: addresses.Key(address), Value: value, Expect: store.Absent})
	return nil
}

// released are the operations by which the addresses of a service go that a newer form of it, if any, does not have.
func released(r store.Reader, s, newer *corev1.Service) []store.Op {
	var ops []store.Op
	for _, address := range s.Spec.ClusterIPs {
		if newer != nil && slices.Contains(newer.Spec.ClusterIPs, address) || len(ops) > 0 {
			continue
		}
		item, ok := r.Get(addresses.Key(address))
		if have, found := store.Get[networkingv1.IPAddress](r, "", address); ok && found && addresses.Belongs(have, s) {
			ops = append(ops, store.Op{Key: item.Key, Expect: item.Revision})
		}
	}
	return ops
}

// ranges are the networks that addresses come from.
func (al *allocator) ranges(r store.Reader) []netip.Prefix {
	objects := store.List[networkingv1.ServiceCIDR](r, "")
	if len(objects) == 0 {
		return []netip.Prefix{al.cfg.CIDR}
	}
	var all []netip.Prefix
	for _, o := range objects {
		for _, text := range o.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && o.DeletionTimestamp == nil && familyOf(p.Addr()) == al.family() {
				all = append(all, p.Masked())
			}
		}
	}
	return all
}

// free reports why a certain address cannot be had.
func (al *allocator) free(r store.Reader, text string) error {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return err
	}
	for _, network := range al.ranges(r) {
		if !network.Contains(address) {
			continue
		}
		first, last := addresses.Bounds(network)
		switch _, taken := r.Get(addresses.Key(text)); {
		case address.Less(first) || last.Less(address):
			return fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", address, network)
		case taken:
			return errAllocated
		}
		return nil
	}
	return errElsewhere
}

// next is a free address: by chance one of the upper part of a network, which leaves the lower part to those who ask for a certain
// address, or, when that is full, of the lower part.
func (al *allocator) next(r store.Reader) (netip.Addr, bool) {
	for _, network := range al.ranges(r) {
		first, last := addresses.Bounds(network)
		border := addresses.Offset(first, reserved(addresses.Distance(first, last)))
		for _, part := range [][2]netip.Addr{{border, last}, {first, border.Prev()}} {
			if address, ok := search(r, part[0], part[1]); ok {
				return address, true
			}
		}
	}
	return netip.Addr{}, false
}

// reserved is how many addresses at the start of a network are given out last: upstream's numbers.
func reserved(size *big.Int) *big.Int {
	if size.Cmp(big.NewInt(16)) <= 0 {
		return big.NewInt(0)
	}
	n := new(big.Int).Div(size, big.NewInt(16))
	return big.NewInt(min(256, max(16, n.Int64())))
}

// search looks for an address that is not taken, from a random one on.
func search(r store.Reader, first, last netip.Addr) (netip.Addr, bool) {
	if last.Less(first) {
		return netip.Addr{}, false
	}
	size := addresses.Distance(first, last).Uint64() + 1
	if size == 0 {
		size-- // 2^64 addresses
	}
	start := addresses.Offset(first, new(big.Int).SetUint64(rand.Uint64N(size)))
	for address, around := start, false; !around || address != start; {
		if _, taken := r.Get(addresses.Key(address.String())); !taken {
			return address, true
		}
		if address == last {
			address = first
		} else {
			address = address.Next()
		}
		around = true
	}
	return netip.Addr{}, false
}
