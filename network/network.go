// Package network owns the pod network of one device: the CNI configuration its containerd reads, the routes to other
// devices' pods, and the masquerading of what leaves the pod network. Devices that share a link reach each other's pods by
// plain routes; there is no overlay.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
)

// Config of a Network.
type Config struct {
	// CNIConfDir is where containerd looks for networks. Addresses given to pods are kept in DataDir.
	CNIConfDir string
	DataDir    string
	// Bridge is the name of the pods' bridge. Default: shoal0.
	Bridge string
	// MTU of the pods' links; 0 leaves it to the kernel.
	MTU    int
	Logger *slog.Logger
}

// State is what the network of this device should be.
type State struct {
	// PodCIDRs are this device's own blocks. IPv4 for now; others are left out.
	PodCIDRs []netip.Prefix
	Peers    []Peer
}

// Peer is another device.
type Peer struct {
	Name      string
	Addresses []netip.Addr
	PodCIDRs  []netip.Prefix
}

// Network applies States.
type Network struct {
	c      Config
	warned string // the last complaint about nft, so that it is logged once
}

// New returns a Network; it changes nothing before Apply.
func New(c Config) *Network {
	if c.Bridge == "" {
		c.Bridge = "shoal0"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Network{c: c}
}

// Apply makes the device's network be s. What is right already is not touched. It is not for concurrent use.
func (n *Network) Apply(ctx context.Context, s State) error {
	own := ipv4(s.PodCIDRs)
	if len(own) == 0 {
		return nil // not assigned yet
	}
	var errs []error
	if err := forward(); err != nil {
		errs = append(errs, err)
	}
	if err := n.writeCNI(own); err != nil {
		errs = append(errs, err)
	}
	if err := n.route(s.Peers); err != nil {
		errs = append(errs, err)
	}
	if err := n.masquerade(ctx, own, s.Peers); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func ipv4(all []netip.Prefix) []netip.Prefix {
	var v4 []netip.Prefix
	for _, p := range all {
		if p.Addr().Is4() {
			v4 = append(v4, p.Masked())
		}
	}
	return v4
}

// forward lets the kernel pass packets between pods and the outside.
func forward() error {
	const file = "/proc/sys/net/ipv4/ip_forward"
	if now, err := os.ReadFile(file); err == nil && len(now) > 0 && now[0] == '1' {
		return nil
	}
	if err := os.WriteFile(file, []byte("1\n"), 0o644); err != nil {
		return fmt.Errorf("enable IPv4 forwarding: %w", err)
	}
	return nil
}
