package raft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/store"
)

func TestClusterSurvivesItsLeader(t *testing.T) {
	c := newCluster(t, 3, nil)
	for i := range 20 {
		c.write(fmt.Sprint("before-", i), "v")
	}
	follower := c.members[(c.index(c.leader())+1)%3]
	_, err := follower.Propose(t.Context(), put("x", "y"))
	if !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("a follower took a proposal: %v", err)
	}
	if _, err := follower.ReadIndex(t.Context()); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("a follower answered for the quorum: %v", err)
	}

	dead := c.index(c.leader())
	c.kill(dead)
	c.same(c.write("between", "v"))
	c.start(dead)
	c.same(c.write("after", "v"))
	if n := c.leader().store.Len("configmaps"); n != 22 {
		t.Errorf("%d objects, want 22", n)
	}

	for i := range c.members {
		c.kill(i)
	}
	for i := range c.members {
		c.start(i)
	}
	c.same(c.write("again", "v"))
	if n := c.leader().store.Len("configmaps"); n != 23 {
		t.Errorf("%d objects after a restart of all, want 23", n)
	}
}

func TestConflictsAreTheSameEverywhere(t *testing.T) {
	c := newCluster(t, 3, nil)
	leader := c.leader()
	revision, err := leader.Propose(t.Context(), put("a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	stale := store.Txn{Ops: []store.Op{{Key: key("a"), Value: []byte("2"), Expect: revision + 1}}}
	_, err = leader.Propose(t.Context(), stale)
	want := &store.ConflictError{Key: key("a"), Expect: revision + 1, Have: revision}
	var got *store.ConflictError
	if !errors.As(err, &got) || *got != *want {
		t.Errorf("Propose = %v, want %v", err, want)
	}
	c.same(c.write("b", "1"))
}

// TestFollowerIsRestored lets a running follower fall behind the log, so that it gets the leader's checkpoint.
func TestFollowerIsRestored(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEntries, cfg.TrailingLogs = 20, 5 })
	leader := c.leader()
	behind := c.members[(c.index(leader)+1)%3]
	c.same(c.write("first", "v"))
	_, _, w := behind.store.ListAndWatch("configmaps", "")
	defer w.Close()

	behind.layer.setCut(true)
	for i := range 100 {
		c.write(fmt.Sprint("n-", i), "v")
	}
	behind.layer.setCut(false)
	c.same(c.write("last", "v"))

	for {
		events, err := w.Next(c.soon())
		if errors.Is(err, store.ErrGone) {
			break
		}
		if err != nil || len(events) == 0 {
			t.Fatalf("the watch through the restore: %v, %v", events, err)
		}
	}
	if head := behind.checkpoint.header(); head.Index == 0 || head.Count == 0 {
		t.Errorf("the follower has no checkpoint of its own: %+v", head)
	}
	i := c.index(behind)
	c.kill(i)
	c.start(i)
	c.same(c.write("restarted", "v"))
}

func TestStopHandsLeadershipOver(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.ElectionTimeout = 2 * time.Second })
	old := c.leader()
	c.same(c.write("a", "v"))
	old.stop()
	if err := <-old.done; err != nil {
		t.Errorf("Run = %v", err)
	}
	c.members[c.index(old)] = nil
	start := time.Now()
	c.write("b", "v")
	if took := time.Since(start); took > time.Second {
		t.Errorf("the next leader was there after %v: nobody handed over", took)
	}
}

// TestLeadershipIsAContext checks that work runs on one server at a time, with growing terms, and moves when it fails.
func TestLeadershipIsAContext(t *testing.T) {
	type span struct {
		term uint64
		end  bool
	}
	spans := make(chan span, 100)
	fail := make(chan struct{})
	cluster := newClusterThat(t, func(ctx context.Context, term uint64) error {
		spans <- span{term: term}
		defer func() { spans <- span{term: term, end: true} }()
		select {
		case <-fail:
			return errors.New("out of order")
		case <-ctx.Done():
			return ctx.Err()
		}
	}, 3, nil)
	first := <-spans
	cluster.write("a", "v")
	fail <- struct{}{}
	if end := <-spans; end != (span{first.term, true}) {
		t.Fatalf("after %+v came %+v", first, end)
	}
	second := <-spans
	if second.end || second.term <= first.term {
		t.Fatalf("after term %d came %+v", first.term, second)
	}
	cluster.kill(cluster.index(cluster.leader()))
	if end := <-spans; end != (span{second.term, true}) {
		t.Fatalf("after %+v came %+v", second, end)
	}
	if third := <-spans; third.end || third.term <= second.term {
		t.Fatalf("after term %d came %+v", second.term, third)
	}
}

func TestMembership(t *testing.T) {
	c := newCluster(t, 3, nil)
	leader := c.leader()
	gone := (c.index(leader) + 1) % 3
	id := fmt.Sprint("s", gone)
	c.same(c.write("a", "v"))
	_, stale := leader.membership()
	if err := leader.takeVote(c.soon(), id, stale); err != nil {
		t.Fatal(err)
	}
	if err := leader.takeVote(c.soon(), leader.cfg.ID, stale); err == nil {
		t.Error("a change was made that had been decided for other members")
	}
	voters := func() (n int) {
		for _, s := range leader.Servers() {
			if s.Voter {
				n++
			}
		}
		return n
	}
	if n := voters(); n != 2 {
		t.Errorf("%d voters after a demotion, want 2: %+v", n, leader.Servers())
	}
	if err := leader.Remove(c.soon(), id); err != nil {
		t.Fatal(err)
	}
	if n := len(leader.Servers()); n != 2 {
		t.Errorf("%d servers after a removal, want 2", n)
	}
	before := leader.raft.LastIndex()
	other := (c.index(leader) + 2) % 3
	if err := leader.Announce(c.soon(), fmt.Sprint("s", other), c.addresses[other], false); err != nil {
		t.Fatal(err)
	}
	if leader.raft.LastIndex() != before {
		t.Error("a join that changes nothing was written")
	}
	if err := c.members[other].Announce(c.soon(), "x", "127.0.0.1:1", false); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("a follower changed the membership: %v", err)
	}
}

// TestReadIndex checks that a read at the index sees every write acknowledged before.
func TestReadIndex(t *testing.T) {
	c := newCluster(t, 3, nil)
	leader := c.leader()
	follower := c.members[(c.index(leader)+1)%3]
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("w%d-%d", worker, i)
				if _, err := leader.Propose(c.soon(), put(name, "v")); err != nil {
					t.Error(err)
					return
				}
				revision, err := leader.ReadIndex(c.soon())
				if err != nil {
					t.Error(err)
					return
				}
				if err := follower.store.Wait(c.soon(), revision); err != nil {
					t.Error(err)
					return
				}
				if _, ok := follower.store.Get(key(name)); !ok {
					t.Errorf("%s is not there at revision %d", name, revision)
				}
			}
		})
	}
	group.Wait()
}
