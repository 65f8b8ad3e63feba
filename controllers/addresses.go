package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// addAddresses gives each node a block of the pod network: the lowest one that no node has. The nodes themselves are the
// book of what is taken, and one worker writes it, so no block is given twice; it is free again when its node is deleted.
func (c *Controllers) addAddresses() {
	var lacking map[string]bool // nodes that have been told so
	l := c.newLoop("addresses", 1, func(ctx context.Context, _ store.Key) (time.Duration, error) {
		var err error
		lacking, err = c.giveAddresses(ctx, lacking)
		return 0, err
	})
	book := key(nodes, "", "")
	c.follow(nodes, "", each(func(node *corev1.Node, deleted bool) {
		if deleted || node.Spec.PodCIDR == "" {
			l.add(book)
		}
	}))
}

// giveAddresses serves all nodes that have no block at once: a fleet that registers is listed once for many of its nodes. It returns those that
// find no free one, of which each is told once.
func (c *Controllers) giveAddresses(ctx context.Context, told map[string]bool) (lacking map[string]bool, err error) {
	var taken []netip.Prefix
	var waiting []*corev1.Node
	for _, node := range store.List[corev1.Node](c.reader, "") {
		if node.Spec.PodCIDR == "" {
			waiting = append(waiting, node)
		}
		for _, text := range append(node.Spec.PodCIDRs, node.Spec.PodCIDR) {
			if block, err := netip.ParsePrefix(text); err == nil {
				taken = append(taken, block.Masked())
			}
		}
	}
	free := freeBlocks(c.podNet, c.cfg.NodeBits, taken)
	lacking = map[string]bool{}
	for _, node := range waiting {
		block, ok := free()
		if ok {
			if err := c.giveBlock(ctx, node, block); err != nil {
				return told, err
			}
			continue
		}
		if lacking[node.Name] = true; !told[node.Name] {
			c.recorder.eventf(node, corev1.EventTypeWarning, "CIDRNotAvailable",
				"The pod network %s has no free block of /%d: make server.nodeBits larger, or server.podCIDR wider", c.podNet, c.cfg.NodeBits)
		}
	}
	return lacking, nil
}

func (c *Controllers) giveBlock(ctx context.Context, node *corev1.Node, block netip.Prefix) error {
	_, err := c.client.Modify(ctx, key(nodes, "", node.Name), "", func(object api.Object) error {
		current := object.(*corev1.Node)
		if current.UID != node.UID || current.Spec.PodCIDR != "" {
			return errKeep
		}
		current.Spec.PodCIDR, current.Spec.PodCIDRs = block.String(), []string{block.String()}
		return nil
	})
	if err != nil && !errors.Is(err, errKeep) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("give the node %s: %w", block, err)
	}
	return nil
}

// freeBlocks returns a function that finds, one after the other, the blocks of a network that overlap none of those taken, from the lowest on. It takes as many
// steps in all as there are blocks, and sorts those taken in place.
func freeBlocks(network netip.Prefix, bits int, taken []netip.Prefix) func() (netip.Prefix, bool) {
	slices.SortFunc(taken, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	candidate, more := netip.PrefixFrom(network.Addr(), bits), true
	return func() (netip.Prefix, bool) {
		for more && network.Contains(candidate.Addr()) {
			var found netip.Prefix
			for len(taken) > 0 && taken[0].Addr().Compare(candidate.Addr()) < 0 && !taken[0].Overlaps(candidate) {
				taken = taken[1:] // it is below
			}
			beyond := candidate
			if len(taken) > 0 && taken[0].Overlaps(candidate) {
				if taken[0].Bits() < bits {
					beyond = taken[0]
				}
			} else {
				found = candidate
			}
			var next netip.Addr
			if next, more = after(beyond); more {
				candidate = netip.PrefixFrom(next, bits)
			}
			if found.IsValid() {
				return found, true
			}
		}
		return netip.Prefix{}, false
	}
}

// after is the first address behind a block.
func after(block netip.Prefix) (netip.Addr, bool) {
	bytes := block.Masked().Addr().AsSlice()
	carry := 1 << ((len(bytes)*8 - block.Bits()) % 8)
	for i := (block.Bits() - 1) / 8; i >= 0 && carry > 0; i-- {
		sum := int(bytes[i]) + carry
		bytes[i], carry = byte(sum), sum>>8
	}
	if carry > 0 || block.Bits() == 0 {
		return netip.Addr{}, false
	}
	next, ok := netip.AddrFromSlice(bytes)
	return next, ok
}
