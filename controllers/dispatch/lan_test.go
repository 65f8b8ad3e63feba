package dispatch_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/controllers/dispatch"
	"github.com/shoal-edge/shoal/store"
)

// TestLAN has devices told of the nodes of their own network and of those that do not say where they are, and told anew when a node
// comes to another network.
func TestLAN(t *testing.T) {
	c := newCluster(t)
	node := func(name, lan, cidr string) {
		labels := map[string]string{}
		if lan != "" {
			labels[dispatch.LANLabel] = lan
		}
		c.create(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}},
		})
	}
	node("near", "10.0.0.0_24", "10.42.1.0/24")
	node("far", "10.0.1.0_24", "10.42.2.0/24")
	node("somewhere", "", "10.42.3.0/24")
	device, _ := c.device("a")
	c.eventually("the link", has(device, "servers"))
	if has(device, "peers/near")() || has(device, "peers/far")() {
		t.Fatal("a device that has no node yet has neighbours")
	}
	node("a", "10.0.0.0_24", "10.42.4.0/24")
	c.eventually("the neighbours", func() bool { return has(device, "peers/near")() && has(device, "peers/somewhere")() })
	if has(device, "peers/far")() {
		t.Fatal("a device was told of a node in another network")
	}
	move := func(name, lan string) {
		c.modify(store.Key{Resource: "nodes", Name: name}, "", func(o api.Object) { o.(*corev1.Node).Labels[dispatch.LANLabel] = lan })
	}
	move("far", "10.0.0.0_24")
	c.eventually("a new neighbour", has(device, "peers/far"))
	move("near", "10.0.1.0_24")
	c.eventually("a neighbour has left", hasNot(device, "peers/near"))
	move("a", "10.0.1.0_24")
	c.eventually("the neighbours of the other network", func() bool { return has(device, "peers/near")() && hasNot(device, "peers/far")() })
}
