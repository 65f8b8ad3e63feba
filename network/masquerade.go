package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// masquerade gives packets from our pods to the world beyond the pod network the device's own address: others have no route
// back to a pod. Between pods, addresses stay as they are.
func (n *Network) masquerade(ctx context.Context, own []netip.Prefix, peers []Peer) error {
	nft, err := knftables.New(knftables.IPv4Family, "shoal")
	if err != nil {
		n.warnOnce("pods cannot reach beyond the pod network: nft does not work here (apt-get install nftables)", err)
		return nil
	}
	pods := slices.Clone(own)
	for _, p := range peers {
		pods = append(pods, ipv4(p.PodCIDRs)...)
	}
	slices.SortFunc(pods, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	pods = slices.Compact(pods)

	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pod network of shoal")})
	tx.Add(&knftables.Set{Name: "pods", Type: "ipv4_addr", Flags: []knftables.SetFlag{knftables.IntervalFlag}})
	tx.Flush(&knftables.Set{Name: "pods"})
	for _, p := range pods {
		tx.Add(&knftables.Element{Set: "pods", Key: []string{p.String()}})
	}
	tx.Add(&knftables.Chain{
		Name: "postrouting", Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PostroutingHook),
		Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	tx.Flush(&knftables.Chain{Name: "postrouting"})
	for _, p := range own {
		rule := knftables.Concat("ip saddr", p.String(), "ip daddr != @pods", "fib daddr type != { local, multicast, broadcast }", "masquerade")
		tx.Add(&knftables.Rule{Chain: "postrouting", Rule: rule})
	}
	if err := nft.Run(ctx, tx); err != nil {
		n.warnOnce("pods cannot reach beyond the pod network: the kernel refuses our nftables rules", err)
		return nil
	}
	n.warned = ""
	return nil
}

// warnOnce logs what a device without NAT cannot do; everything else works, so it is not an error.
func (n *Network) warnOnce(message string, err error) {
	if text := fmt.Sprint(message, err); n.warned != text {
		n.warned = text
		n.c.Logger.Warn(message, "err", err)
	}
}
