package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	hraft "github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/shoal-edge/shoal/store"
)

// TestCheckpointAndRestart writes past several checkpoints, restarts and compares.
func TestCheckpointAndRestart(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.CheckpointEntries, cfg.TrailingLogs = 10, 3 })
	m := c.leader()
	for i := range 100 {
		c.write(fmt.Sprint("n-", i%15), fmt.Sprint("v-", i))
		if i%7 == 0 {
			drop := store.Txn{Ops: []store.Op{{Key: key(fmt.Sprint("n-", i%15)), Expect: store.Any}}}
			if _, err := m.Propose(t.Context(), drop); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitForCheckpoint(t, m, 90)
	if first, _ := m.log.FirstIndex(); first < 60 {
		t.Errorf("the log still begins with entry %d", first)
	}
	want, _ := m.store.All()
	c.kill(0)
	m = c.start(0)
	c.leader()
	got, _ := m.store.All()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
	if revision := c.write("more", "v"); revision <= want[len(want)-1].Revision {
		t.Errorf("revision %d does not go on", revision)
	}
}

func waitForCheckpoint(t *testing.T, m *member, index uint64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); m.checkpoint.header().Index < index; {
		if time.Now().After(deadline) {
			t.Fatalf("the checkpoint stays at %+v", m.checkpoint.header())
		}
		time.Sleep(5 * time.Millisecond) // the library tells nobody when it is done
	}
}

// TestFailedCheckpointLosesNothing lets one write of the checkpoint fail and expects its changes in the next one.
func TestFailedCheckpointLosesNothing(t *testing.T) {
	s := store.New(store.Config{Persisted: true})
	c, err := openCheckpoint(t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(revision uint64, name string) {
		if err := s.Apply(revision, put(name, "v")); err != nil {
			t.Fatal(err)
		}
	}
	f := &fsm{store: s, checkpoint: c, due: make(chan struct{}, 1)}
	persist := func(index uint64) error {
		snapshot, err := f.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snapshot.Release()
		to, _ := c.Create(1, index, 1, hraft.Configuration{}, 1, nil)
		return snapshot.Persist(to)
	}
	apply(1, "a")
	if err := persist(1); err != nil {
		t.Fatal(err)
	}
	apply(2, "b")
	if err := persist(1); !errors.Is(err, errOlder) {
		t.Fatalf("a checkpoint that is not newer: %v", err)
	}
	apply(3, "c")
	if err := persist(3); err != nil {
		t.Fatal(err)
	}
	want, _ := s.All()
	again := store.New(store.Config{Persisted: true})
	if _, err = openCheckpoint(filepath.Dir(c.path), again); err != nil {
		t.Fatal(err)
	}
	got, revision := again.All()
	if diff := cmp.Diff(want, got); diff != "" || revision != 3 {
		t.Errorf("at revision %d (-store +checkpoint):\n%s", revision, diff)
	}
}

// written makes a data folder with a log and a checkpoint and returns it, closed.
func written(t *testing.T) string {
	c := newCluster(t, 1, func(cfg *Config) { cfg.CheckpointEntries, cfg.TrailingLogs = 20, 30 })
	for i := range 50 {
		c.write(fmt.Sprint("n-", i), strings.Repeat("value ", 50))
	}
	waitForCheckpoint(t, c.members[0], 30)
	c.kill(0)
	return c.dirs[0]
}

func openDir(t *testing.T, dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n, err := Open(Config{
		ID: "s0", Address: l.Addr().String(), Dir: dir, Layer: &tcpLayer{Listener: l}, Store: store.New(store.Config{Persisted: true}),
	})
	if err == nil {
		err = n.Close()
	}
	return err
}

// TestFlippedBits damages any byte of any file: the server finds that out, or has lost nothing by it. The first two pages of the
// checkpoint are left alone: bbolt keeps its two roots there, and without the newer one it takes the older, as after a torn write.
func TestFlippedBits(t *testing.T) {
	dir := written(t)
	read := func(dir string) (state, log string, err error) {
		s := store.New(store.Config{})
		if _, err := openCheckpoint(dir, s); err != nil {
			return "", "", err
		}
		l, err := openLog(dir, true)
		if err != nil {
			return "", "", err
		}
		defer l.close()
		if l.doubt != nil {
			return "", "", &DamagedError{l.path, l.doubt}
		}
		last, err := l.LastIndex()
		return fmt.Sprint(s.All()), fmt.Sprint(last), err
	}
	state, log, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	segmentFile, err := filepath.Rel(dir, pathOf(t, dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		for _, file := range []string{segmentFile, checkpointFile} {
			content, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			from, until := 2*os.Getpagesize(), len(content)-1
			if file != checkpointFile {
				from = 0
				if rapid.Bool().Draw(t, "used") {
					until = 60 * blockSize
				}
			}
			content[rapid.IntRange(from, until).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			path := filepath.Join(to, file) // a new file each time: a failed opening may keep the old one locked
			if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		gotState, gotLog, err := read(to)
		switch {
		case errors.As(err, new(*DamagedError)):
			found++
		case err != nil:
			t.Fatalf("not a DamagedError: %v", err)
		case gotState != state || gotLog != log:
			t.Fatal("damage went unnoticed")
		}
	})
	if found == 0 {
		t.Error("no damage was ever found")
	}
}

func TestTakenFolder(t *testing.T) {
	c := newCluster(t, 1, nil)
	err := openDir(t, c.dirs[0])
	if err == nil || !strings.Contains(err.Error(), "in use by another shoal process") {
		t.Errorf("Open of a folder in use = %v", err)
	}
	c.write("still", "works")
}

func TestUnknownRecordStopsTheServer(t *testing.T) {
	c := newCluster(t, 1, nil)
	m := c.leader()
	revision := c.write("a", "v")
	if err := m.raft.Apply([]byte{99, 1, 2}, time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	if err := <-m.done; !errors.Is(err, errRecord) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("Run = %v, want the record's error", err)
	}
	m.done <- nil // for the clean-up
	if m.store.Revision() != revision {
		t.Error("something was applied after the unknown record")
	}
}

// TestStream sends a checkpoint and damages it on the way, at every kind of place.
func TestStream(t *testing.T) {
	dir := written(t)
	c, err := openCheckpoint(dir, store.New(store.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	meta, source, err := c.Open("")
	if err != nil {
		t.Fatal(err)
	}
	sound, err := io.ReadAll(source)
	if err != nil || int64(len(sound)) != meta.Size {
		t.Fatalf("%d bytes, announced were %d: %v", len(sound), meta.Size, err)
	}
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	receive := func(content []byte) (*store.Store, error) {
		s := store.New(store.Config{Persisted: true})
		to, err := openCheckpoint(t.TempDir(), s)
		if err != nil {
			t.Fatal(err)
		}
		sink, _ := to.Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
		if _, err := io.Copy(sink, bytes.NewReader(content)); err != nil {
			return nil, errors.Join(err, sink.Cancel())
		}
		if err := sink.Close(); err != nil {
			return nil, err
		}
		return s, to.load()
	}
	s, err := receive(sound)
	if err != nil {
		t.Fatal(err)
	}
	if n := uint64(s.Len("configmaps")); n == 0 || n != c.head.Count || s.Revision() != c.head.Revision {
		t.Errorf("%d objects at revision %d arrived of %+v", n, s.Revision(), c.head)
	}
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(sound)-1).Draw(t, "at")
		bad := bytes.Clone(sound)
		bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if rapid.Bool().Draw(t, "cut") {
			bad = sound[:at]
		}
		if _, err := receive(bad); err == nil {
			t.Fatalf("damage at byte %d of %d was not noticed", at, len(sound))
		}
	})
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var txn store.Txn
		for range rapid.IntRange(1, 4).Draw(t, "ops") {
			op := store.Op{
				Key: store.Key{
					Resource: rapid.String().Draw(t, "resource"), Namespace: rapid.String().Draw(t, "namespace"), Name: rapid.String().Draw(t, "name"),
				},
				Expect: rapid.SampledFrom([]uint64{store.Any, store.Absent, 1, 1 << 40}).Draw(t, "expect"),
			}
			if rapid.Bool().Draw(t, "put") {
				op.Value = rapid.SliceOf(rapid.Byte()).Draw(t, "value")
			}
			txn.Ops = append(txn.Ops, op)
		}
		b := encodeTxn(txn)
		got, err := decodeTxn(b)
		if diff := cmp.Diff(txn, got); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
		if _, err := decodeTxn(b[:len(b)-1]); err == nil {
			t.Fatal("a record that is cut off was read")
		}
		if _, err := decodeTxn(append(b, 0)); err == nil {
			t.Fatal("a record with something behind it was read")
		}
	})
}

func FuzzDecodeTxn(f *testing.F) {
	f.Add(encodeTxn(put("a", "v")))
	f.Fuzz(func(t *testing.T, b []byte) {
		txn, err := decodeTxn(b)
		if err != nil {
			return
		}
		again, err := decodeTxn(encodeTxn(txn))
		if diff := cmp.Diff(txn, again); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}
