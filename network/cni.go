package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/shoal-edge/shoal/durable"
)

// CNIFile is the name of the network's file in the CNI folder. It sorts before what others leave there: containerd takes
// the first.
const CNIFile = "00-shoal.conflist"

// Conflist is the CNI configuration: a bridge with an address for each pod from the device's own blocks, kept below dataDir.
// Masquerading is ours; portmap needs iptables, for pods with a hostPort only.
func Conflist(bridge, dataDir string, mtu int, podCIDRs []netip.Prefix) ([]byte, error) {
	type m map[string]any
	ranges := make([][]m, len(podCIDRs))
	for i, p := range podCIDRs {
		ranges[i] = []m{{"subnet": p.String()}}
	}
	plugin := m{
		"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false, "hairpinMode": true,
		"ipam": m{"type": "host-local", "dataDir": dataDir, "ranges": ranges, "routes": []m{{"dst": "0.0.0.0/0"}}},
	}
	if mtu > 0 {
		plugin["mtu"] = mtu
	}
	data, err := json.MarshalIndent(m{"cniVersion": "0.4.0", "name": "shoal", "plugins": []m{
		plugin, {"type": "portmap", "capabilities": m{"portMappings": true}},
	}}, "", "  ")
	return append(data, '\n'), err
}

func (n *Network) writeCNI(own []netip.Prefix) error {
	data, err := Conflist(n.c.Bridge, filepath.Join(n.c.DataDir, "cni"), n.c.MTU, own)
	if err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	changed, err := durable.Update(filepath.Join(n.c.CNIConfDir, CNIFile), data, 0o644)
	if err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	if changed {
		n.c.Logger.Info("pod network configured", "podCIDR", own[0], "bridge", n.c.Bridge)
	}
	return nil
}
