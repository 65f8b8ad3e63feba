//go:build !race

package raft

import (
	"errors"
	"fmt"
	"testing"
)

// In these tests a server's address changes while the leader speaks with it. hashicorp/raft v1.8.0 reads a peer's name there without the lock
// under which it replaces name and address (updateLastAppended, replication.go:660). The name is the same before and after, so nothing comes of
// it, but the race detector is right to say so.

// TestAddressesChange lets servers come back at each other's addresses.
func TestAddressesChange(t *testing.T) {
	c := newTended(t, 3, nil)
	c.awaitVoters("s0", "s1", "s2")
	c.same(c.write("a", "v"))
	leader := c.index(c.leader())
	b, d := (leader+1)%3, (leader+2)%3
	c.kill(d)
	c.addresses[d] = "127.0.0.1:0"
	c.start(d) // the leader can be reached, and this one cannot
	c.announce(d)
	c.same(c.write("one moved", "v"))

	c.kill(b)
	c.kill(d)
	c.addresses[b], c.addresses[d] = c.addresses[d], c.addresses[b]
	c.start(b)
	c.start(d)
	for _, i := range []int{b, d} { // there is no quorum before the leader knows more
		for j, m := range c.members {
			if j != i {
				m.Hint(fmt.Sprint("s", i), c.addresses[i])
			}
		}
	}
	c.announce(b)
	c.announce(d)
	c.same(c.write("two swapped", "v"))
	c.awaitVoters("s0", "s1", "s2")
	for _, s := range c.leader().Servers() {
		var i int
		if _, err := fmt.Sscanf(s.ID, "s%d", &i); err != nil || s.Address != c.addresses[i] {
			t.Errorf("%s is listed at %q, not at %s", s.ID, s.Address, c.addresses[i])
		}
	}
}

// TestAllAddressesChange is a site where the power comes back and every server has got a new address.
func TestAllAddressesChange(t *testing.T) {
	c := newTended(t, 3, nil)
	c.awaitVoters("s0", "s1", "s2")
	c.same(c.write("a", "v"))
	for i := range c.members {
		c.kill(i)
		c.addresses[i] = "127.0.0.1:0"
	}
	for i := range c.members {
		c.start(i)
	}
	for _, m := range c.members {
		for i, address := range c.addresses {
			m.Hint(fmt.Sprint("s", i), address)
		}
	}
	for i := range c.members {
		c.announce(i)
	}
	c.same(c.write("b", "v"))
}

// TestAddressOfAnother lets servers come to an address that the list of members has for another one.
func TestAddressOfAnother(t *testing.T) {
	c := newTended(t, 3, nil)
	c.awaitVoters("s0", "s1", "s2")
	leader := c.leader()
	other := (c.index(leader) + 1) % 3
	id := fmt.Sprint("s", other)
	before := c.agreed()
	if err := leader.Announce(c.soon(), "s9", c.addresses[other], false); !errors.Is(err, errOther) {
		t.Errorf("a server may have the address where another one answers: %v", err)
	}
	if err := leader.Announce(c.soon(), "s9", leader.cfg.Address, false); !errors.Is(err, errOther) {
		t.Errorf("a server may have the leader's address: %v", err)
	}
	if c.agreed() != before {
		t.Error("the list of members was written")
	}

	c.kill(other)
	c.dirs, c.addresses, c.members = append(c.dirs, t.TempDir()), append(c.addresses, c.addresses[other]), append(c.members, nil)
	if err := c.start(3).Adopt(c.leader().Cluster()); err != nil {
		t.Fatal(err)
	}
	c.announce(3)
	if s, _ := find(c.leader().Servers(), id); !s.Voter || s.Address != "" {
		t.Errorf("the one whose address another has got is %+v", s)
	}
	c.addresses[other] = "127.0.0.1:0"
	c.start(other)
	c.announce(other)
	c.same(c.write("b", "v"))
	if s, _ := find(c.leader().Servers(), id); !s.Voter || s.Address != c.addresses[other] {
		t.Errorf("the one that moved is %+v", s)
	}
}
