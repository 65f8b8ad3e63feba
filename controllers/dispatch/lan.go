package dispatch

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// LANLabel is a label that a device gives its node: the network that its address is in, such as 192.168.1.0_24. The pod network
// is between devices of one such network, so a device is told of those only: a fleet of sites costs the leader, its links and
// its devices what a site costs. A node without the label is told of all, and all are told of it.
const LANLabel = "shoal.dev/lan"

// unknownLAN is the network of a device whose node is not there yet: it is nobody's neighbour who has one.
const unknownLAN = "?"

// lan is the network of a node, "" if it does not say.
func (d *Dispatcher) lan(name string) string {
	d.peer(name) // which is up to date then
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.peers[name]; ok {
		return known.lan
	}
	return unknownLAN
}

func neighbours(a, b string) bool { return a == b || a == "" || b == "" }

// tellPeers has those told of a node's change that it matters to.
func (d *Dispatcher) tellPeers(event store.Event) {
	name := event.Item.Key.Name
	before, after := d.lanIn(event.Item.Key, event.Prev), d.lanIn(event.Item.Key, event.Item.Value)
	key := "peers/" + name
	for _, dev := range d.connected() {
		if dev.name == name {
			if before != after || event.Prev == nil {
				d.compare(dev) // it has other neighbours now
			}
			continue
		}
		if own := d.lan(dev.name); neighbours(own, after) || (event.Prev != nil && neighbours(own, before)) {
			d.touch(dev, key)
		}
	}
}

// lanIn is the network in a node's stored form.
func (d *Dispatcher) lanIn(key store.Key, value []byte) string {
	if value == nil {
		return ""
	}
	object, ok := d.reader.Object(store.Item{Key: key, Value: value})
	if node, isNode := object.(*corev1.Node); ok && isNode {
		return node.Labels[LANLabel]
	}
	return ""
}

// tellServers has all devices told of the servers, if those have changed.
func (d *Dispatcher) tellServers() {
	if d.cfg.Servers == nil {
		return
	}
	now := strings.Join(d.cfg.Servers(), "\n")
	d.mu.Lock()
	same := now == d.servers
	d.servers = now
	d.mu.Unlock()
	if same {
		return
	}
	for _, dev := range d.connected() {
		d.touch(dev, transport.ServersKey)
	}
}
