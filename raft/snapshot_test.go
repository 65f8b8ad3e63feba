package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-edge/shoal/store"
)

// save takes a snapshot of one server.
func (c *testCluster) save(m *member) []byte {
	c.Helper()
	s, size, err := m.OpenSnapshot(c.soon())
	if err != nil {
		c.Fatal(err)
	}
	data, err := io.ReadAll(s)
	if err = errors.Join(err, s.Close()); err != nil || int64(len(data)) != size {
		c.Fatalf("%d bytes of %d: %v", len(data), size, err)
	}
	return data
}

// restore restores through whoever leads.
func (c *testCluster) restore(snapshot []byte) uint64 {
	c.Helper()
	_, revision, err := c.leader().RestoreSnapshot(c.soon(), bytes.NewReader(snapshot), int64(len(snapshot)))
	if err != nil {
		c.Fatal(err)
	}
	return revision
}

// values are the objects of a store, without revisions.
func values(s *store.Store) map[string]string {
	out := map[string]string{}
	items, _ := s.All()
	for _, item := range items {
		out[item.Key.String()] = string(item.Value)
	}
	return out
}

// TestSaveUnderLoadAndRestore takes a snapshot while clients write, and expects the restored state to be exactly the one at its
// revision, on all servers, at a revision that was never used; every watch ends and the leader's work begins anew.
func TestSaveUnderLoadAndRestore(t *testing.T) {
	epochs := make(chan uint64, 100)
	c := newClusterThat(t, func(ctx context.Context, epoch uint64) error {
		epochs <- epoch
		return idle(ctx, epoch)
	}, 3, func(cfg *Config) { cfg.CheckpointEntries = 50 })
	leader := c.leader()
	_, _, recording := leader.store.ListAndWatch("configmaps", "")
	defer recording.Close()

	var group sync.WaitGroup
	halt := make(chan struct{})
	for worker := range 4 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-halt:
					return
				default:
				}
				txn := put(fmt.Sprintf("w%d-%d", worker, i%20), strings.Repeat(fmt.Sprint(i, " "), 100))
				if i%7 == 6 {
					txn.Ops[0].Value = nil
				}
				if _, err := leader.Propose(c.soon(), txn); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	if err := leader.store.Wait(c.soon(), 200); err != nil {
		t.Fatal(err)
	}
	snapshot := c.save(leader)
	close(halt)
	group.Wait()
	info, err := InspectSnapshot(bytes.NewReader(snapshot))
	if err != nil || info.Cluster != leader.Cluster() || info.Revision < 200 || info.Saved.IsZero() {
		t.Fatalf("%+v, %v", info, err)
	}
	want := map[string]string{}
	for seen := uint64(0); seen < info.Revision; {
		events, err := recording.Next(c.soon())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			seen = e.Item.Revision
			switch {
			case seen > info.Revision:
			case e.Type == store.Deleted:
				delete(want, e.Item.Key.String())
			default:
				want[e.Item.Key.String()] = string(e.Item.Value)
			}
		}
	}
	c.write("not-in-the-snapshot", "v")
	before := c.write("w0-0", "changed")
	c.same(before)
	var watches []*store.Watcher
	for _, m := range c.members {
		_, _, w := m.store.ListAndWatch("configmaps", "")
		defer w.Close()
		watches = append(watches, w)
	}

	revision := c.restore(snapshot)
	if revision <= before {
		t.Errorf("restored at revision %d, but %d was used", revision, before)
	}
	c.same(revision)
	if diff := cmp.Diff(want, values(c.leader().store)); diff != "" {
		t.Errorf("restored (-snapshot +state):\n%s", diff)
	}
	for _, item := range mustAll(c.leader().store) {
		if item.Revision != revision {
			t.Fatalf("%s has the revision %d, not %d", item.Key, item.Revision, revision)
		}
	}
	for i, w := range watches {
		if _, err := w.Next(c.soon()); !errors.Is(err, store.ErrGone) {
			t.Errorf("the watch on server %d: %v, want ErrGone", i, err)
		}
	}
	if first, second := <-epochs, <-epochs; second <= first {
		t.Errorf("epoch %d after %d", second, first)
	}

	// The servers' own checkpoints must have it all too, and the log must not.
	for i := range c.members {
		waitForCheckpointAt(t, c.members[i], revision)
		c.kill(i)
	}
	for i := range c.members {
		c.start(i)
	}
	last := c.write("after", "v")
	if last <= revision {
		t.Errorf("revision %d after %d", last, revision)
	}
	want["configmaps/default/after"] = "v"
	c.same(last)
	if diff := cmp.Diff(want, values(c.leader().store)); diff != "" {
		t.Errorf("after a restart (-want +have):\n%s", diff)
	}
}

func mustAll(s *store.Store) []store.Item {
	items, _ := s.All()
	return items
}

func waitForCheckpointAt(t testing.TB, m *member, revision uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for m.checkpoint.header().Revision < revision {
		if sleep(ctx, 5*time.Millisecond); ctx.Err() != nil {
			t.Fatalf("the checkpoint stays at %+v", m.checkpoint.header())
		}
	}
}

// TestRestoreReachesWhoWasAway restores while a follower is down, and another one that never had the parts joins through it.
func TestRestoreReachesWhoWasAway(t *testing.T) {
	c := newCluster(t, 3, nil)
	for i := range 20 {
		c.write(fmt.Sprint("n-", i), "v")
	}
	c.same(c.write("last", "v"))
	snapshot := c.save(c.leader())
	away := (c.index(c.leader()) + 1) % 3
	c.kill(away)
	c.write("n-0", "changed")
	revision := c.restore(snapshot)
	c.start(away)
	c.same(revision)
	c.same(c.write("more", "v"))
	if got := values(c.members[away].store)["configmaps/default/n-0"]; got != "v" {
		t.Errorf("n-0 is %q", got)
	}
}

// TestDamagedSnapshotChangesNothing damages a snapshot at every kind of place; nothing may come of it, not even an entry.
func TestDamagedSnapshotChangesNothing(t *testing.T) {
	c := newCluster(t, 1, nil)
	for i := range 30 {
		c.write(fmt.Sprint("n-", i), strings.Repeat("value ", 20))
	}
	m := c.leader()
	sound := c.save(m)
	before, revision := m.store.All()
	entries := m.raft.LastIndex()
	rapid.Check(t, func(t *rapid.T) {
		bad := bytes.Clone(sound)
		at := rapid.IntRange(0, len(sound)-1).Draw(t, "at")
		switch rapid.SampledFrom([]string{"flip", "cut", "longer"}).Draw(t, "how") {
		case "flip":
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "cut":
			bad = bad[:at]
		case "longer":
			bad = append(bad, 0)
		}
		_, _, err := m.RestoreSnapshot(c.soon(), bytes.NewReader(bad), int64(len(bad)))
		if !errors.Is(err, ErrSnapshotData) {
			t.Fatalf("RestoreSnapshot = %v", err)
		}
		if _, err := InspectSnapshot(bytes.NewReader(bad)); err == nil {
			t.Fatal("InspectSnapshot noticed nothing")
		}
	})
	_, _, err := m.RestoreSnapshot(c.soon(), bytes.NewReader(sound[:100]), int64(len(sound)))
	if !errors.Is(err, ErrSnapshotData) || !strings.Contains(err.Error(), "cut off after 100") {
		t.Errorf("an upload that ends early: %v", err)
	}
	after, now := m.store.All()
	if diff := cmp.Diff(before, after); diff != "" || now != revision || m.raft.LastIndex() != entries {
		t.Errorf("revision %d, %d entries; before %d, %d\n%s", now, m.raft.LastIndex(), revision, entries, diff)
	}
	if left, err := filepath.Glob(filepath.Join(c.dirs[0], "restore*")); len(left) > 0 || err != nil {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestRestoreIsDroppedWithItsLeader leaves a restore half done; the next leader's first write must make the servers forget it.
func TestRestoreIsDroppedWithItsLeader(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.same(c.write("a", "v"))
	old := c.leader()
	half := &part{kind: partItems, items: []store.Item{{Key: key("half"), Value: []byte("v")}}}
	if err := old.raft.Apply(encodePart(half), 0).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := old.fsm.Snapshot(); !errors.Is(err, errRestoreUnderWay) {
		t.Errorf("a checkpoint in between: %v", err)
	}
	c.kill(c.index(old))
	c.same(c.write("b", "v"))
	// The end of it, from the new leader, does not fit any more.
	end := c.leader().raft.Apply(encodePart(&part{kind: partEnd, number: 1, total: 1}), 0)
	if err := end.Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := result(end); !errors.Is(err, errRestoreBroken) {
		t.Errorf("the end of a restore that was dropped: %v", err)
	}
	c.same(c.write("c", "v"))
	if _, ok := c.leader().store.Get(key("half")); ok {
		t.Error("half of a restore was restored")
	}
}

// TestRestoreOfAnotherCluster restores into a new cluster what an old one had: revisions and epochs go on above the old ones.
func TestRestoreOfAnotherCluster(t *testing.T) {
	old := newCluster(t, 1, nil)
	for i := range 50 {
		old.write(fmt.Sprint("n-", i), "v")
	}
	last := old.write("last", "v")
	snapshot := old.save(old.leader())
	fresh := newCluster(t, 1, nil)
	revision := fresh.restore(snapshot)
	if revision <= last+strangerRevisions-1 {
		t.Errorf("restored at revision %d; the old cluster may have used %d and more", revision, last)
	}
	if next := fresh.write("next", "v"); next <= revision {
		t.Errorf("revision %d after %d", next, revision)
	}
	again := fresh.restore(fresh.save(fresh.leader()))
	if again <= revision || again > revision+1000 {
		t.Errorf("a restore in the same cluster went from %d to %d", revision, again)
	}
}

// TestRestoreFolder founds a cluster from a snapshot alone.
func TestRestoreFolder(t *testing.T) {
	old := newCluster(t, 1, nil)
	for i := range 50 {
		old.write(fmt.Sprint("n-", i), "v")
	}
	snapshot := old.save(old.leader())
	want := values(old.leader().store)
	c := &testCluster{TB: t, members: make([]*member, 1), dirs: []string{filepath.Join(t.TempDir(), "raft")}, addresses: []string{"127.0.0.1:0"}, lead: idle}
	c.configure = func(cfg *Config) { cfg.Bootstrap = false }
	t.Cleanup(func() { c.kill(0) })
	bad := bytes.Clone(snapshot)
	bad[len(bad)/2] ^= 1
	if _, _, err := RestoreFolder(c.dirs[0], bytes.NewReader(bad), Server{ID: "s0", Address: "x:1"}); !errors.Is(err, ErrSnapshotData) {
		t.Errorf("a damaged snapshot: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(c.dirs[0])); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	info, founded, err := RestoreFolder(c.dirs[0], bytes.NewReader(snapshot), Server{ID: "s0", Address: "x:1"})
	if err != nil || founded.Cluster == info.Cluster || founded.Objects != len(want) {
		t.Fatalf("%+v, %+v, %v", info, founded, err)
	}
	m := c.start(0)
	c.leader()
	if diff := cmp.Diff(want, values(m.store)); diff != "" || m.Cluster() != founded.Cluster {
		t.Errorf("cluster %s, want %s\n%s", m.Cluster(), founded.Cluster, diff)
	}
	if revision := c.write("more", "v"); revision <= founded.Revision || founded.Revision <= info.Revision+strangerRevisions-1 {
		t.Errorf("revisions %d, %d, %d do not grow as they should", info.Revision, founded.Revision, revision)
	}
	c.kill(0)
	if _, _, err := RestoreFolder(c.dirs[0], bytes.NewReader(snapshot), Server{ID: "s0", Address: "x:1"}); err == nil {
		t.Error("a folder with a state was overwritten")
	}
}
