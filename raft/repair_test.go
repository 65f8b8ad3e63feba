package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
)

// damages are the ways in which a file goes bad: what becomes of a sound one; nil removes it.
func damages() []damageKind {
	page := max(os.Getpagesize(), blockSize)
	small := func(b []byte) bool { return len(b) < 4*page } // not a database
	return []damageKind{
		{"empty", func([]byte) []byte { return []byte{} }},
		{"gone", func([]byte) []byte { return nil }},
		{"garbage", func([]byte) []byte { return bytes.Repeat([]byte("garbage "), 1<<13) }},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"cut off", func(b []byte) []byte { return b[:len(b)/3] }},
		{"torn tail", func(b []byte) []byte {
			if small(b) {
				return b[:len(b)-3]
			}
			return append(bytes.Clone(b[:2*page]), make([]byte, len(b)-2*page)...)
		}},
		{"bits flipped", func(b []byte) []byte {
			if small(b) {
				return append([]byte{b[0] ^ 1}, b[1:]...)
			}
			return bytes.ReplaceAll(b, []byte("value value"), []byte("walue value")) // also in what is free now
		}},
		{"newest write flipped", func(b []byte) []byte {
			switch {
			case small(b):
				return append([]byte{b[0] ^ 1}, b[1:]...)
			case binary.LittleEndian.Uint32(b[rootAt:]) == rootMagic:
				return flipNewestRoot(b, page)
			}
			return flipNewestBatch(b)
		}},
	}
}

type damageKind struct {
	name string
	do   func([]byte) []byte
}

// flipNewestRoot damages the root page of the last transaction: bbolt then takes the one before.
func flipNewestRoot(b []byte, page int) []byte {
	b = bytes.Clone(b)
	transaction := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at+rootAt+48:]) }
	at := 0
	if transaction(page) > transaction(0) {
		at = page
	}
	b[at+rootAt+40] ^= 1
	return b
}

// flipNewestBatch damages one sector of the last batch in a segment.
func flipNewestBatch(b []byte) []byte {
	b = bytes.Clone(b)
	newest, at := uint64(0), 0
	for i := 0; i < len(b); i += sectorSize {
		if number := binary.BigEndian.Uint64(b[i+4:]); number > newest {
			newest, at = number, i
		}
	}
	b[at+300] ^= 1
	return b
}

// pathOf is where a file is that is to be damaged: of the log, the segment that was written last.
func pathOf(t testing.TB, dir, file string) string {
	t.Helper()
	path := filepath.Join(dir, file)
	if file != logFile {
		return path
	}
	scan, err := scanLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer scan.close()
	return scan.batches[scan.newest()].segment.path()
}

func damage(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := how(sound)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if bad == nil {
		return
	}
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRepair damages every file of a server in every way, the leader's as well as a follower's, while others write on. The server
// comes back by itself, with all that was acknowledged, and votes again.
func TestRepair(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEntries, cfg.TrailingLogs = 20, 10 })
	written := 0
	write := func(n int) (revision uint64) {
		for range n {
			revision = c.write(fmt.Sprint("n-", written), strings.Repeat("value ", 50))
			written++
		}
		return revision
	}
	c.same(write(50))
	for _, m := range c.members {
		waitForCheckpoint(t, m, 20)
	}
	victim := 0
	for _, file := range []string{logFile, checkpointFile, identityFile} {
		kinds := damages()
		if file == identityFile { // some lines of text, where there are not so many ways
			kinds = slices.DeleteFunc(kinds, func(k damageKind) bool {
				return !slices.Contains([]string{"empty", "gone", "cut off", "bits flipped"}, k.name)
			})
		}
		for _, kind := range kinds {
			t.Run(file+"/"+kind.name, func(t *testing.T) {
				victim = (victim + 1) % 3
				c.kill(victim)
				damage(t, pathOf(t, c.dirs[victim], file), kind.do)
				write(3)
				began := time.Now()
				m := c.start(victim)
				if lost := file == logFile || file == checkpointFile; lost != m.OnProbation() {
					t.Errorf("on probation: %t", m.OnProbation())
				}
				write(3)
				c.join(victim)
				c.same(write(10))
				t.Logf("repaired and written to in %v", time.Since(began))
				if n := m.store.Len("configmaps"); n != written {
					t.Errorf("%d objects of %d", n, written)
				}
			})
		}
	}
	// All of them vote: any two go on without the third.
	for i := range 3 {
		c.kill(i)
		write(1)
		c.start(i)
		c.same(write(1))
	}
	for _, dir := range c.dirs {
		asides, err := filepath.Glob(filepath.Join(dir, "*.damaged-*"))
		if err != nil || len(asides) == 0 || len(asides) > 3 {
			t.Errorf("set aside in %s: %v, %v", dir, asides, err)
		}
	}
}

func removeLog(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, logFile)); err != nil {
		t.Fatal(err)
	}
}

// TestProbationDoesNotVote has a server that has lost its log: it answers nobody, and the one that is left of the others waits.
func TestProbationDoesNotVote(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.same(c.write("a", "v"))
	asker, victim, third := 0, 1, 2
	c.kill(victim)
	removeLog(t, c.dirs[victim])
	m := c.start(victim)
	from := c.members[asker]
	self := from.transport.EncodePeer("s0", hraft.ServerAddress(c.addresses[asker]))
	header := hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte("s0"), Addr: self}
	to := hraft.ServerAddress(c.addresses[victim])
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), errProbation.Error()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	vote := hraft.RequestVoteRequest{RPCHeader: header, Term: 1000, LastLogIndex: 1000, LastLogTerm: 1000, LeadershipTransfer: true}
	ask := func(when string) {
		t.Helper()
		from.transport.CloseStreams() // those to the server as it was before
		refused("a vote "+when, from.transport.RequestVote("s1", to, &vote, &hraft.RequestVoteResponse{}))
		refused("a pre-vote "+when, from.transport.RequestPreVote("s1", to,
			&hraft.RequestPreVoteRequest{RPCHeader: header, Term: 1000, LastLogIndex: 1000, LastLogTerm: 1000}, &hraft.RequestPreVoteResponse{}))
		refused("a wish to be succeeded "+when, from.transport.TimeoutNow("s1", to, &hraft.TimeoutNowRequest{RPCHeader: header}, &hraft.TimeoutNowResponse{}))
	}
	ask("before it is readmitted")
	// Nobody leads in term 0: this only asks whether the server listens.
	heartbeat := func(term uint64) error {
		return from.transport.AppendEntries("s1", to, &hraft.AppendEntriesRequest{RPCHeader: header, Term: term}, &hraft.AppendEntriesResponse{})
	}
	refused("a heartbeat before it is readmitted", heartbeat(1000))
	if at := m.Caller(); at != c.addresses[asker] {
		t.Errorf("it can ask at %q, not at %q", at, c.addresses[asker])
	}
	if err := m.Readmitted(Readmission{Term: 5, Index: 1 << 40}); err != nil { // it never gets so far
		t.Fatal(err)
	}
	ask("before it has caught up")
	refused("a leader of an earlier term", heartbeat(4))
	if err := heartbeat(5); err != nil {
		t.Errorf("a leader of the term: %v", err)
	}
	// It stays on probation when it starts again, also with a list of members in which it is the only one.
	c.kill(victim)
	c.kill(third)
	if m = c.start(victim); !m.OnProbation() || m.probation.readmission() != (Readmission{5, 1 << 40}) {
		t.Errorf("after another start: %t, %+v", m.OnProbation(), m.probation.readmission())
	}
	ask("after another start")
}

// TestReadmitNeedsTheOthers checks that no leader readmits a server with that server's own help.
func TestReadmitNeedsTheOthers(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.same(c.write("a", "v"))
	leader := c.leader()
	lost, dead := (c.index(leader)+1)%3, (c.index(leader)+2)%3
	c.kill(dead)
	c.kill(lost)
	removeLog(t, c.dirs[lost])
	c.start(lost)
	if r, err := leader.Readmit(c.soon(), fmt.Sprint("s", lost), c.addresses[lost], false); err == nil {
		t.Errorf("readmitted by one of three: %+v", r)
	}
	c.start(dead)
	c.readmit(lost)
	c.same(c.write("b", "v"))
}

// TestDamageWithoutOthers keeps what there is of a cluster's only server, and makes nothing up.
func TestDamageWithoutOthers(t *testing.T) {
	dir := written(t)
	for _, file := range []string{logFile, checkpointFile} {
		for _, kind := range damages() {
			t.Run(file+"/"+kind.name, func(t *testing.T) {
				to := t.TempDir()
				if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				path := pathOf(t, to, file)
				damage(t, path, kind.do)
				bad, _ := os.ReadFile(path) // none when it is gone
				c := &testCluster{TB: t, dirs: []string{to}, addresses: []string{"127.0.0.1:0"}, members: make([]*member, 1), lead: idle}
				t.Cleanup(func() { c.kill(0) })
				m := c.start(0)
				if kind.name == "newest write flipped" {
					c.write("it goes on", "v")
					return
				}
				if !m.OnProbation() {
					t.Fatal("it leads as if nothing was missing")
				}
				c.kill(0)
				if kind.name == "gone" && file != logFile {
					return
				}
				asides, err := filepath.Glob(filepath.Join(to, file+".damaged-*"))
				if err != nil || len(asides) != 1 {
					t.Fatalf("set aside: %v, %v", asides, err)
				}
				aside := asides[0]
				if file == logFile {
					aside = filepath.Join(aside, filepath.Base(path))
				}
				if kept, err := os.ReadFile(aside); kind.name != "gone" && err != nil || !bytes.Equal(kept, bad) {
					t.Errorf("what was set aside is not what was there: %v", err)
				}
				// A person can go on with what the checkpoint has; or with the log, which here still has all from the beginning, though most
				// of it was removed.
				founded, err := Recover(to, Server{ID: "s0", Address: "127.0.0.1:1"})
				if least := map[string]int{logFile: 30, checkpointFile: 50}[file]; err != nil || founded.Objects < least {
					t.Errorf("Recover = %+v, %v, want %d objects", founded, err, least)
				}
			})
		}
	}
}

// TestDamageFoundLater lets a file go bad under a running server: it ends, and the next start repairs it.
func TestDamageFoundLater(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) { cfg.CheckpointEntries, cfg.TrailingLogs = 20, 10 })
	for i := range 50 {
		c.write(fmt.Sprint("n-", i), strings.Repeat("value ", 50))
	}
	victim := (c.index(c.leader()) + 1) % 3
	m := c.members[victim]
	path := filepath.Join(c.dirs[victim], checkpointFile)
	waitForCheckpoint(t, m, 40)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; at++ { // the same file: somebody may have it open
		next := bytes.Index(content[at:], []byte("value value"))
		if next < 0 {
			break
		}
		at += next
		if _, err := f.WriteAt([]byte("w"), int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.checkpoint.load(); !isDamaged(err) {
		t.Fatalf("load = %v", err)
	}
	if err := <-m.done; !isDamaged(err) || !strings.Contains(err.Error(), "the next start") {
		t.Errorf("Run = %v", err)
	}
	m.done <- nil // for the clean-up
	c.kill(victim)
	c.start(victim)
	c.readmit(victim)
	c.same(c.write("again", "v"))
}

// TestFoundingIsFinished has a power cut at each step of a cluster's first start. Nothing can be lost yet, so the next start goes on.
func TestFoundingIsFinished(t *testing.T) {
	for name, leave := range map[string]func(dir string) error{
		"half of the log": func(dir string) error { return os.Mkdir(filepath.Join(dir, logFile+".new"), 0o700) },
		"an empty log": func(dir string) error {
			log, err := openLog(dir, true)
			return errors.Join(err, log.close())
		},
		"the term without the first entry": func(dir string) error {
			log, err := openLog(dir, true)
			return errors.Join(err, log.SetUint64([]byte(keyTerm), foundingTerm), log.close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := leave(dir); err != nil {
				t.Fatal(err)
			}
			c := &testCluster{TB: t, dirs: []string{dir}, addresses: []string{"127.0.0.1:0"}, members: make([]*member, 1), lead: idle}
			t.Cleanup(func() { c.kill(0) })
			c.start(0)
			c.write("a", "v")
		})
	}
}

func TestAsideNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	at := time.Date(1970, 1, 1, 0, 0, 9, 0, time.UTC) // no clock has been set
	var names []string
	for i := range 3 {
		if err := os.WriteFile(path, []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		name, err := setAside(path, at)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(name))
	}
	if got := strings.Join(names, " "); got != "file.damaged-19700101T000009Z file.damaged-19700101T000009Z-2 file.damaged-19700101T000009Z-3" {
		t.Errorf("set aside as %s", got)
	}
}

func FuzzDecodeReadmission(f *testing.F) {
	f.Add(Readmission{3, 4}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeReadmission(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("%x becomes %+v", b, r)
		}
	})
}
