package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
)

// newTended makes a cluster whose leader tends the membership. A short grace period keeps tests short.
func newTended(t *testing.T, size int, configure func(*Config)) *testCluster {
	c := newCluster(t, 1, func(cfg *Config) {
		cfg.Voters, cfg.VoterGrace = 3, 2*time.Second
		if configure != nil {
			configure(cfg)
		}
	})
	for range size - 1 {
		c.add(false)
	}
	return c
}

// add starts one more server, which announces itself as it does when it joins.
func (c *testCluster) add(witness bool) *member {
	c.Helper()
	c.dirs, c.addresses, c.members = append(c.dirs, c.TempDir()), append(c.addresses, "127.0.0.1:0"), append(c.members, nil)
	i := len(c.members) - 1
	if witness {
		configure := c.configure
		c.configure = func(cfg *Config) {
			configure(cfg)
			cfg.Witness = cfg.Witness || cfg.ID == fmt.Sprint("s", i)
		}
	}
	leader := c.leader()
	m := c.start(i)
	if err := m.Adopt(leader.Cluster()); err != nil {
		c.Fatal(err)
	}
	c.announce(i)
	return m
}

// fill writes many objects at once.
func (c *testCluster) fill(name string, objects int, value string) {
	c.Helper()
	m := c.leader()
	var writes sync.WaitGroup
	for i := range objects {
		writes.Go(func() {
			if _, err := m.Propose(c.soon(), put(fmt.Sprint(name, "-", i), value)); err != nil {
				c.Error(err)
			}
		})
	}
	writes.Wait()
}

// awaitVoters waits until exactly these have a vote, in the order of their names.
func (c *testCluster) awaitVoters(want ...string) {
	c.Helper()
	c.await(fmt.Sprint("the voters ", want), func() bool { return slices.Equal(c.voterIDs(), want) })
}

func (c *testCluster) voterIDs() (ids []string) {
	for _, s := range c.leader().Servers() {
		if s.Voter {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// agreed is the entry that has the list of members.
func (c *testCluster) agreed() (index uint64) {
	c.Helper()
	c.await("the members are agreed", func() bool {
		_, index = c.leader().membership()
		return index > 0
	})
	return index
}

func (c *testCluster) await(what string, check func() bool) {
	c.Helper()
	for deadline := time.Now().Add(30 * time.Second); !check(); {
		if time.Now().After(deadline) {
			c.Fatalf("not in time: %s; the members are %+v", what, c.leader().Servers())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestServersBecomeVotersInPairs(t *testing.T) {
	c := newTended(t, 2, nil)
	c.same(c.write("a", "v"))
	if ids := c.voterIDs(); !slices.Equal(ids, []string{"s0"}) {
		t.Errorf("two servers have the voters %v", ids)
	}
	start := time.Now()
	c.add(false)
	c.awaitVoters("s0", "s1", "s2")
	t.Logf("the third server made voters of two in %v", time.Since(start))
	c.add(false)
	c.same(c.write("b", "v"))
	if ids := c.voterIDs(); len(ids) != 3 {
		t.Errorf("four servers have the voters %v", ids)
	}
	// While all is well nothing is written.
	before := c.leader().raft.LastIndex()
	time.Sleep(time.Second)
	if after := c.leader().raft.LastIndex(); after != before {
		t.Errorf("%d entries were written for nothing", after-before)
	}
}

func TestDeadVoterIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for grace periods")
	}
	c := newTended(t, 4, nil)
	c.awaitVoters("s0", "s1", "s2")
	leader := c.index(c.leader())
	dead := (leader + 1) % 3
	c.kill(dead)
	c.await("the spare has the dead one's vote", func() bool {
		ids := c.voterIDs()
		return len(ids) == 3 && slices.Contains(ids, "s3") && !slices.Contains(ids, fmt.Sprint("s", dead))
	})
	before := c.voterIDs()
	c.start(dead)
	c.same(c.write("back", "v"))
	if ids := c.voterIDs(); !slices.Equal(ids, before) {
		t.Errorf("the dead one came back and the voters are %v, not %v", ids, before)
	}
	// The leader is replaced too, by its successor.
	lost := c.index(c.leader())
	c.kill(lost)
	c.await("the leader's vote is the returned one's", func() bool {
		ids := c.voterIDs()
		return len(ids) == 3 && slices.Contains(ids, fmt.Sprint("s", dead)) && !slices.Contains(ids, fmt.Sprint("s", lost))
	})
	c.same(c.write("end", "v"))
}

// TestForgetfulServerHasNoVote lets a voter lose its data folder: it may not vote before it has everything again.
func TestForgetfulServerHasNoVote(t *testing.T) {
	c := newTended(t, 3, nil)
	c.awaitVoters("s0", "s1", "s2")
	c.same(c.write("a", "v"))
	victim := (c.index(c.leader()) + 1) % 3
	id := fmt.Sprint("s", victim)
	c.kill(victim)
	c.dirs[victim] = t.TempDir()
	m := c.start(victim)
	if !m.Cluster().IsZero() {
		t.Fatal("an empty folder belongs to a cluster")
	}
	vote := hraft.RequestVoteRequest{RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte("s9"), Addr: []byte("s9@x")}, Term: 99}
	from := c.leader()
	if err := from.transport.RequestVote(hraft.ServerID(id), hraft.ServerAddress(c.addresses[victim]), &vote, new(hraft.RequestVoteResponse)); err == nil {
		t.Error("a server that remembers nothing was asked for its vote")
	}
	if err := c.leader().Distrust(c.soon(), id); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(c.voterIDs(), id) {
		t.Error("a server that remembers nothing has a vote")
	}
	if err := m.Adopt(c.leader().Cluster()); err != nil {
		t.Fatal(err)
	}
	c.announce(victim)
	c.awaitVoters("s0", "s1", "s2")
	c.same(c.write("b", "v"))
}

func TestConnectionsGoToNames(t *testing.T) {
	c := newCluster(t, 2, nil)
	c.same(c.write("a", "v"))
	stream := streamLayer{c.members[0].layer, "", c.members[0].Node}
	if conn, err := stream.Dial(target("s1", hraft.ServerAddress(c.addresses[1])), ioTimeout); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	if _, err := stream.Dial(target("s7", hraft.ServerAddress(c.addresses[1])), ioTimeout); !errors.Is(err, errOther) {
		t.Errorf("s1 answered for s7: %v", err)
	}
	if _, err := stream.Dial(target("s1", "unknown/s1"), ioTimeout); err == nil {
		t.Error("a server was found that nobody knows")
	}
}

// TestReturningServerDeposesNobody checks pre-vote: who was cut off comes back without a new term.
func TestReturningServerDeposesNobody(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.same(c.write("a", "v"))
	leader := c.leader()
	term := leader.Term()
	cut := c.members[(c.index(leader)+1)%3]
	cut.layer.setCut(true)
	c.await("it misses the leader", func() bool { return cut.raft.State() == hraft.Candidate })
	time.Sleep(4 * cut.cfg.ElectionTimeout) // it stands for election again and again
	cut.layer.setCut(false)
	c.same(c.write("b", "v"))
	if now := c.leader(); now != leader || now.Term() != term || cut.Term() != term {
		t.Errorf("after term %d of %s came term %d of %s; the one that was cut off is in term %d", term, leader.cfg.ID, now.Term(), now.cfg.ID, cut.Term())
	}
}

// TestDistrustWaitsForTheQuorum asks for it again after the first try got no answer: as long as the change may still be lost, the
// forgetful server must not hear that all is well.
func TestDistrustWaitsForTheQuorum(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.ElectionTimeout = 2 * time.Second }) // it leads for a while without the others
	c.same(c.write("a", "v"))
	leader := c.leader()
	victim := fmt.Sprint("s", (c.index(leader)+1)%3)
	leader.layer.setCut(true)
	for _, m := range c.members {
		m.layer.setCut(true)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := leader.Distrust(ctx, victim); err == nil {
		t.Fatal("a vote was taken without a quorum")
	}
	if s, _ := find(leader.Servers(), victim); s.Voter {
		t.Fatal("the change is not in the leader's list: the test shows nothing")
	}
	if err := leader.Distrust(c.soon(), victim); err == nil {
		t.Error("a change that may still be lost counts as made")
	}
}

// TestSpareCatchesUpFirst gives a spare much to catch up before it can take the place of a dead voter.
func TestSpareCatchesUpFirst(t *testing.T) {
	c := newTended(t, 4, func(cfg *Config) {
		cfg.CheckpointEntries, cfg.TrailingLogs, cfg.VoterGrace = 200, 50, 500*time.Millisecond
	})
	c.awaitVoters("s0", "s1", "s2")
	c.kill(3)
	c.fill("n", 600, "v")
	last := c.leader().raft.LastIndex()
	c.kill((c.index(c.leader()) + 1) % 3)
	c.fill("m", 50, "v")
	spare := c.start(3)
	for !slices.Contains(c.voterIDs(), "s3") {
		time.Sleep(time.Millisecond)
	}
	if have := spare.raft.LastIndex(); have < last {
		t.Errorf("the spare got a vote with entry %d of %d", have, last)
	}
	c.same(c.write("end", "v"))
}

// TestFlappingServerChangesNothing has a voter come and go, with a spare at hand.
func TestFlappingServerChangesNothing(t *testing.T) {
	c := newTended(t, 4, nil)
	c.awaitVoters("s0", "s1", "s2")
	leader := c.leader()
	flapping := c.members[(c.index(leader)+1)%3]
	before := c.agreed()
	for began := time.Now(); time.Since(began) < 2*leader.cfg.VoterGrace; {
		flapping.layer.setCut(true)
		time.Sleep(200 * time.Millisecond)
		flapping.layer.setCut(false)
		c.same(c.write("w", "v"))
	}
	if c.agreed() != before {
		t.Errorf("a server that comes and goes changed the members to %+v", c.leader().Servers())
	}
}

// TestStopHandsOver stops the leader in good order, with one of the others dead: the living one leads at once.
func TestStopHandsOver(t *testing.T) {
	c := newTended(t, 3, func(cfg *Config) { cfg.ElectionTimeout = time.Second; cfg.VoterGrace = time.Minute })
	c.awaitVoters("s0", "s1", "s2")
	leader := c.leader()
	dead, successor := (c.index(leader)+1)%3, (c.index(leader)+2)%3
	c.kill(dead)
	c.await("the leader knows", func() bool { return !leader.tending.isWell(fmt.Sprint("s", dead)) })
	led := c.index(leader)
	c.members[led] = nil
	began := time.Now()
	leader.stop()
	if err := <-leader.done; err != nil {
		t.Error(err)
	}
	if m := c.members[successor]; m.raft.State() != hraft.Leader {
		t.Errorf("s%d is a %v, %v after the leader began to stop", successor, m.raft.State(), time.Since(began))
	}
	c.start(led)
	c.same(c.write("a", "v"))
}
