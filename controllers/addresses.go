package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// addAddresses gives each node a block of the pod network: the lowest one that no node has. The nodes themselves are the
// book of what is taken, and one worker writes it, so no block is given twice; it is free again when its node is deleted.
func (c *Controllers) addAddresses() {
	l := c.newLoop("addresses", 1, c.giveAddresses)
	c.follow(nodes, "", each(func(node *corev1.Node, deleted bool) {
		if !deleted && node.Spec.PodCIDR == "" {
			l.add(key(nodes, "", node.Name))
		}
	}))
}

// retryAddresses is how soon a node that found no free block looks again.
const retryAddresses = time.Minute

// giveAddresses serves all nodes that have no block at once: a fleet that registers is listed once for many of its nodes.
func (c *Controllers) giveAddresses(ctx context.Context, k store.Key) (time.Duration, error) {
	node, ok := store.Get[corev1.Node](c.reader, "", k.Name)
	if !ok || node.Spec.PodCIDR != "" {
		return 0, nil
	}
	var taken []netip.Prefix
	lacking := []*corev1.Node{node}
	for _, other := range store.List[corev1.Node](c.reader, "") {
		if other.Spec.PodCIDR == "" && other.Name != node.Name {
			lacking = append(lacking, other)
		}
		for _, text := range append(other.Spec.PodCIDRs, other.Spec.PodCIDR) {
			if block, err := netip.ParsePrefix(text); err == nil {
				taken = append(taken, block)
			}
		}
	}
	for _, node := range lacking {
		block, ok := freeBlock(c.podNet, c.cfg.NodeBits, taken)
		if !ok {
			c.recorder.eventf(node, corev1.EventTypeWarning, "CIDRNotAvailable", "The pod network %s has no free block of /%d",
				c.podNet, c.cfg.NodeBits)
			return retryAddresses, nil
		}
		if err := c.giveBlock(ctx, node, block); err != nil {
			return 0, err
		}
		taken = append(taken, block)
	}
	return 0, nil
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

// freeBlock finds the lowest block of a network that overlaps none of those taken. A block that is taken is skipped as a
// whole, so the search ends after as many steps as there are taken ones.
func freeBlock(network netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, bool) {
	candidate := netip.PrefixFrom(network.Addr(), bits)
	for network.Contains(candidate.Addr()) {
		skip, overlaps := netip.Prefix{}, false
		for _, t := range taken {
			if t.Overlaps(candidate) {
				skip, overlaps = t, true
				break
			}
		}
		if !overlaps {
			return candidate, true
		}
		if skip.Bits() > bits {
			skip = candidate
		}
		next, ok := after(skip)
		if !ok {
			break
		}
		candidate = netip.PrefixFrom(next, bits)
	}
	return netip.Prefix{}, false
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
