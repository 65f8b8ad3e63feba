package raft

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
)

const witness = 2 // its place in a site of two servers and a witness

// newSite makes a site of two servers, s0 and s1, and the witness s2. All have a vote.
func newSite(t *testing.T, configure func(*Config)) *testCluster {
	c := newTended(t, 2, configure)
	c.add(true)
	c.awaitVoters("s0", "s1", "s2")
	return c
}

// asked counts how often others ask a server whether they could win an election.
func (m *member) asked() *atomic.Int64 {
	var n atomic.Int64
	m.raft.RegisterObserver(hraft.NewObserver(nil, false, func(o *hraft.Observation) bool {
		if _, ok := o.Data.(hraft.RequestPreVoteRequest); ok {
			n.Add(1)
		}
		return false
	}))
	return &n
}

// sameServers is same without the witness, which has no objects.
func (c *testCluster) sameServers(revision uint64) {
	c.Helper()
	w := c.members[witness]
	c.members[witness] = nil
	c.same(revision)
	c.members[witness] = w
	if w != nil {
		if items, _ := w.store.All(); len(items) > 0 {
			c.Errorf("the witness has %d objects", len(items))
		}
	}
}

func (c *testCluster) restart(i int) *member {
	c.Helper()
	c.kill(i)
	return c.start(i)
}

// TestSiteOfTwoSurvivesEitherServer is what a witness is for.
func TestSiteOfTwoSurvivesEitherServer(t *testing.T) {
	c := newSite(t, nil)
	c.sameServers(c.write("a", "v"))
	for i := range 2 {
		c.kill(i)
		c.write(fmt.Sprint("without-", i), "v")
		c.start(i)
		c.sameServers(c.write(fmt.Sprint("with-", i), "v"))
	}
	c.kill(witness)
	c.write("without the witness", "v")
	c.start(witness)
	c.sameServers(c.write("end", "v"))
}

// TestWitnessHoldsBackWhoIsBehind commits entries with a server and the witness only, and loses that server. The other server
// lacks what was acknowledged, so nobody may lead before the first one is back, whatever is restarted meanwhile.
func TestWitnessHoldsBackWhoIsBehind(t *testing.T) {
	c := newSite(t, nil)
	c.sameServers(c.write("a", "v"))
	first := c.index(c.leader())
	behind := 1 - first
	c.kill(behind)
	c.write("acknowledged", "by one server and the witness")
	c.kill(first)
	c.start(behind)
	for _, again := range []int{witness, behind} {
		asked := c.members[witness].asked()
		c.await("the one that is behind wants to lead", func() bool { return asked.Load() >= 3 })
		for _, i := range []int{behind, witness} {
			if c.members[i].raft.State() == hraft.Leader {
				t.Fatalf("s%d leads without what was acknowledged", i)
			}
		}
		c.restart(again)
	}
	c.start(first)
	if now := c.index(c.leader()); now != first {
		t.Errorf("s%d leads", now)
	}
	c.sameServers(c.write("b", "v"))
	if got := values(c.members[behind].store)["configmaps/default/acknowledged"]; got == "" {
		t.Error("an acknowledged write is lost")
	}
}

// TestWitnessNeverLeads leaves a witness alone, and asks it to lead.
func TestWitnessNeverLeads(t *testing.T) {
	c := newSite(t, nil)
	c.sameServers(c.write("a", "v"))
	leader := c.leader()
	s, _ := find(leader.Servers(), "s2")
	if err := leader.raft.LeadershipTransferToServer("s2", s.listed()).Error(); err == nil {
		t.Error("a witness succeeded a leader")
	}
	c.write("b", "v") // the one that could not be succeeded goes on
	w := c.members[witness]
	term := w.Term()
	for i := range 2 {
		c.kill(i)
	}
	c.await("the witness misses its leader", func() bool { return w.raft.State() == hraft.Candidate })
	w.stand() // another package's mistake
	time.Sleep(6 * w.cfg.ElectionTimeout)
	if state := w.raft.State(); state == hraft.Leader || w.Term() != term {
		t.Errorf("alone in term %d, a witness became %v in term %d", term, state, w.Term())
	}
	for i := range 2 {
		c.start(i)
	}
	c.sameServers(c.write("c", "v"))
}

func TestWitnessDoesNotVoteForItself(t *testing.T) {
	log, err := openLog(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.close() })
	votes := witnessVotes{log, "w"}
	vote := func(term uint64, candidate string) error {
		return errors.Join(votes.SetUint64([]byte(keyVoteTerm), term), votes.Set([]byte(keyVoteFor), []byte(named(hraft.ServerID(candidate), "x:1"))))
	}
	if err := vote(4, "a"); err != nil {
		t.Fatal(err)
	}
	if err := vote(5, "w"); !errors.Is(err, errWitness) {
		t.Errorf("a witness voted for itself: %v", err)
	}
	if term, err := votes.GetUint64([]byte(keyVoteTerm)); err != nil || term != 4 {
		t.Errorf("the last vote was in term %d, %v", term, err)
	}
	if err := vote(5, "b"); err != nil {
		t.Error(err)
	}
	if name, _ := votes.Get([]byte(keyVoteFor)); string(name) != "b@x:1" {
		t.Errorf("the last vote was for %q", name)
	}
}

// TestVoteIsWhole reads a log as after a power cut between the two steps in which the library keeps a vote.
func TestVoteIsWhole(t *testing.T) {
	dir := t.TempDir()
	log, err := openLog(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		log.SetUint64([]byte(keyVoteTerm), 4), log.Set([]byte(keyVoteFor), []byte("a@x:1")),
		log.SetUint64([]byte(keyVoteTerm), 5), log.close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if log, err = openLog(dir, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.close() })
	if term, err := log.GetUint64([]byte(keyVoteTerm)); err != nil || term != 4 {
		t.Errorf("a vote for whoever had one in term 4 stands in term %d, %v", term, err)
	}
}

// TestWitnessKeepsNoObjects looks for what was written in the files of a witness that heard of it in each way: entry by entry,
// and by a checkpoint.
func TestWitnessKeepsNoObjects(t *testing.T) {
	c := newSite(t, func(cfg *Config) { cfg.CheckpointEntries, cfg.TrailingLogs = 50, 20 })
	const secret = "nothing for a witness"
	c.fill("n", 120, secret)
	c.kill(witness)
	c.fill("m", 120, secret)
	c.await("the leader wrote a checkpoint", func() bool { return c.leader().checkpoint.header().Index > witnessTrailing })
	before := c.leader().checkpoint.header().Index
	w := c.start(witness)
	c.await("the witness got a checkpoint", func() bool { return w.checkpoint.header().Index >= before })
	c.sameServers(c.write("o", secret))

	// It counts from then on.
	c.kill(1 - c.index(c.leader()))
	c.write("p", secret)
	if first, _ := w.log.FirstIndex(); first < before-witnessTrailing {
		t.Errorf("its log begins with entry %d, the checkpoint was at %d", first, before)
	}
	c.kill(witness)
	files, err := filepath.Glob(filepath.Join(c.dirs[witness], logFile, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range append(files, filepath.Join(c.dirs[witness], checkpointFile)) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("the witness has objects in %s", path)
		}
	}
	c.start(witness)
	c.write("q", secret)
}

// TestWitnessSeesARestore replaces the state while there is a witness.
func TestWitnessSeesARestore(t *testing.T) {
	c := newSite(t, nil)
	c.write("a", "v")
	snapshot := c.save(c.leader())
	c.write("b", "v")
	c.sameServers(c.restore(snapshot))
	c.restart(witness)
	c.kill(1 - c.index(c.leader()))
	c.write("c", "v")
}

// TestWitnessThatForgot loses a witness's folder: like any server it must not vote before it knows all again.
func TestWitnessThatForgot(t *testing.T) {
	c := newSite(t, nil)
	c.sameServers(c.write("a", "v"))
	c.kill(witness)
	c.dirs[witness] = t.TempDir()
	w := c.start(witness)
	if err := c.leader().Distrust(c.soon(), "s2"); err != nil {
		t.Fatal(err)
	}
	if err := w.Adopt(c.leader().Cluster()); err != nil {
		t.Fatal(err)
	}
	c.announce(witness)
	c.awaitVoters("s0", "s1", "s2")
	c.kill(1 - c.index(c.leader()))
	c.write("b", "v")
}

// TestFoldersKeepTheirKind opens the folder of a witness as a server's, and the other way round.
func TestFoldersKeepTheirKind(t *testing.T) {
	c := newSite(t, nil)
	c.sameServers(c.write("a", "v"))
	for i := range c.members {
		c.kill(i)
	}
	for i, want := range []string{"is that of a server", "", "is that of a witness"} {
		if want == "" {
			continue
		}
		cfg := c.config(i)
		cfg.Witness = !cfg.Witness
		cfg.Layer, cfg.Address = &tcpLayer{Listener: listenTCP(t)}, "127.0.0.1:1"
		if n, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("s%d as another kind: %v", i, err)
			if err == nil {
				n.Close()
			}
		}
	}
	if _, err := InspectFolder(c.dirs[witness]); !errors.Is(err, ErrNoState) {
		t.Errorf("a witness has something to recover: %v", err)
	}
	if _, err := Recover(c.dirs[witness], Server{ID: "s2", Address: "x:1"}); !errors.Is(err, ErrNoState) {
		t.Errorf("a witness was recovered: %v", err)
	}
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
