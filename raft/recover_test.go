package raft

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	hraft "github.com/hashicorp/raft"
)

// TestRecover loses two of three servers, goes on with the third, refuses the two when they come back, and takes them in again
// when their folders are gone.
func TestRecover(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEntries = 20 })
	for i := range 50 {
		c.write(fmt.Sprint("n-", i), "v")
	}
	last := c.write("last", "v")
	c.same(last)
	old := c.members[0].Cluster()
	want := values(c.members[2].store)
	for i := range c.members {
		c.kill(i)
	}

	survivor, err := InspectFolder(c.dirs[2])
	if err != nil || survivor.Cluster != old || survivor.Objects != len(want) || len(survivor.Members) != 3 || survivor.Revision != last {
		t.Fatalf("%+v, %v", survivor, err)
	}
	founded, err := Recover(c.dirs[2], Server{ID: "s2", Address: c.addresses[2]})
	if err != nil || founded.Cluster == old || founded.Revision <= last {
		t.Fatalf("%+v, %v", founded, err)
	}
	if kept, err := InspectFolder(founded.Before); err != nil || kept.Cluster != old {
		t.Errorf("the old folder: %+v, %v", kept, err)
	}
	m := c.start(2)
	c.leader()
	if diff := cmp.Diff(want, values(m.store)); diff != "" {
		t.Errorf("recovered (-before +after):\n%s", diff)
	}
	revision := c.write("recovered", "v")
	if revision <= founded.Revision {
		t.Errorf("revision %d after %d", revision, founded.Revision)
	}

	// The two could form a quorum of the old cluster: hearing of the new one ends that, for good.
	for i := range 2 {
		c.start(i)
	}
	for i := range 2 {
		if err := <-c.members[i].done; !errors.Is(err, ErrSuperseded) {
			t.Errorf("the old server %d: %v", i, err)
		}
		c.members[i].done <- nil // for the clean-up
		c.kill(i)
		cfg := c.config(i)
		cfg.Layer, cfg.Address = m.layer, c.addresses[i]
		if _, err := Open(cfg); !errors.Is(err, ErrSuperseded) || !strings.Contains(err.Error(), c.dirs[i]) {
			t.Errorf("the old server %d starts again: %v", i, err)
		}
	}
	for i := range 2 {
		if err := os.RemoveAll(c.dirs[i]); err != nil {
			t.Fatal(err)
		}
		c.configure = func(cfg *Config) { cfg.Bootstrap = false }
		c.start(i)
		c.join(i)
	}
	c.same(c.write("together", "v"))
	if n := len(c.leader().Servers()); n != 3 {
		t.Errorf("%d servers", n)
	}
}

// TestStrangersAreRefused lets servers of two clusters meet, as after a mix-up of addresses.
func TestStrangersAreRefused(t *testing.T) {
	a, b := newCluster(t, 1, nil), newCluster(t, 1, nil)
	a.write("a", "v")
	b.write("b", "v")
	if err := a.members[0].Adopt(b.members[0].Cluster()); err == nil {
		t.Error("a server changed its cluster")
	}
	stream := streamLayer{a.members[0].layer, "", a.members[0].Node}
	if _, err := stream.Dial(target("s0", "127.0.0.1:1"), ioTimeout); err == nil {
		t.Error("a connection to nowhere")
	}
	_, err := stream.Dial(target("s0", hraft.ServerAddress(b.addresses[0])), ioTimeout)
	if !errors.Is(err, errStranger) || !strings.Contains(err.Error(), b.members[0].Cluster().String()) {
		t.Errorf("a server of another cluster: %v", err)
	}
	a.write("still", "works")
	b.write("still", "works")
}

func TestDamagedIdentityIsRepaired(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.write("a", "v")
	cluster := c.members[0].Cluster()
	c.kill(0)
	if err := os.WriteFile(c.dirs[0]+"/"+identityFile, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.start(0).Cluster(); got != cluster {
		t.Errorf("the cluster is %s, was %s", got, cluster)
	}
	c.write("b", "v")
}
