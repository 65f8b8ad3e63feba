package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// protocol marks our routes in the kernel's table, so that nobody else's are ever touched ("proto 83" in ip route).
const protocol = 83

// route makes the routes with our mark be exactly those to the peers' pods.
func (n *Network) route(peers []Peer) error {
	want := map[netip.Prefix]netip.Addr{}
	for _, p := range peers {
		via, ok := gateway(p.Addresses)
		if !ok {
			continue
		}
		for _, cidr := range ipv4(p.PodCIDRs) {
			want[cidr] = via
		}
	}
	have, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var errs []error
	for _, r := range have {
		cidr, via, ok := parse(r)
		if ok && want[cidr] == via {
			delete(want, cidr)
			continue
		}
		if _, wanted := want[cidr]; wanted {
			continue // replaced below, in one step
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove the route to %s: %w", cidr, err))
		}
	}
	for cidr, via := range want {
		dst := &net.IPNet{IP: cidr.Addr().AsSlice(), Mask: net.CIDRMask(cidr.Bits(), 32)}
		if err := netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: via.AsSlice(), Protocol: protocol}); err != nil {
			errs = append(errs, fmt.Errorf("route to the pods %s via %s: %w", cidr, via, err))
		}
	}
	return errors.Join(errs...)
}

func gateway(addresses []netip.Addr) (netip.Addr, bool) {
	for _, a := range addresses {
		if a = a.Unmap(); a.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func parse(r netlink.Route) (cidr netip.Prefix, via netip.Addr, ok bool) {
	if r.Dst == nil {
		return cidr, via, false
	}
	addr, ok1 := netip.AddrFromSlice(r.Dst.IP.To4())
	ones, _ := r.Dst.Mask.Size()
	via, ok2 := netip.AddrFromSlice(r.Gw.To4())
	return netip.PrefixFrom(addr, ones), via, ok1 && ok2
}
