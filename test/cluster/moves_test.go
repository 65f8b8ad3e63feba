//go:build !race

package cluster

import (
	"fmt"
	"testing"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
)

// hashicorp/raft v1.8.0 reads the name of a peer whose address changes without its lock, as raft/tend_moves_test.go says. Nothing comes of it, but the race
// detector says so.

// TestAllServersChangeAddresses is a site where DHCP gives out other addresses after an outage: first each server gets one that
// another server had, then all get new ones, and know one of those.
func TestAllServersChangeAddresses(t *testing.T) {
	c := start(t, 3, 0)
	before := c.deploy("web", 3)
	servers := c.fleet.Members()[:3]
	names := []string{"server-1", "server-2", "server-3"}

	c.stopAll(names...)
	first := servers[0].Config.Server.Listen
	for i, m := range servers[:2] {
		m.Config.Server.Listen = servers[i+1].Config.Server.Listen
	}
	servers[2].Config.Server.Listen = first
	c.startAll(names...)
	c.use(servers[0])
	c.write("rotated")
	c.listed(servers)

	c.stopAll(names...)
	for _, m := range servers {
		address, err := fleet.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		m.Config.Server.Listen = address
		m.Config.Join.Servers = []string{servers[0].Config.Server.Listen}
	}
	c.startAll(names...)
	c.use(servers[1])
	c.write("moved")
	c.listed(servers)
	c.unchanged(before)
}

// listed waits until the list of members has the servers where they are.
func (c *cluster) listed(servers []*fleet.Member) {
	c.Helper()
	c.eventually("the members are listed where they are", func() error {
		members := c.members()
		for _, m := range servers {
			if have := members[m.Name]; have.Address != m.Config.Server.Listen || !have.Healthy {
				return fmt.Errorf("%s is at %s: %+v", m.Name, m.Config.Server.Listen, have)
			}
		}
		return nil
	})
	if n := len(voters(c.members())); n != len(servers) {
		c.Errorf("%d of them have a vote", n)
	}
}
