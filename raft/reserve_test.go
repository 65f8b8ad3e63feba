package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/store"
)

func TestReserveIsGivenToWhatIsVital(t *testing.T) {
	dir := t.TempDir()
	r, err := openReserve(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	tries := 0
	write := func() error {
		if tries++; tries == 1 {
			return full
		}
		return nil
	}
	if err := r.vital(write); !errors.Is(err, full) || tries != 1 {
		t.Errorf("with nothing in reserve: %v after %d tries", err, tries)
	}
	if err := r.fill(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, reserveFile))
	if err != nil || info.Size() != r.size {
		t.Fatalf("the reserve: %v, %v", info, err)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Blocks*512 < r.size {
		t.Errorf("it takes no room: %d blocks", s.Blocks)
	}
	tries = 0
	if err := r.vital(write); err != nil || tries != 2 {
		t.Errorf("with a reserve: %v after %d tries", err, tries)
	}
	if _, err := os.Stat(filepath.Join(dir, reserveFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	other := errors.New("another error")
	if err := r.fill(); err != nil {
		t.Fatal(err)
	}
	if err := r.vital(func() error { return other }); !errors.Is(err, other) || !r.held {
		t.Errorf("given up for %v", err)
	}
	again, err := openReserve(dir, r.logger)
	if err != nil || !again.held {
		t.Errorf("after another start: %v, %v", again, err)
	}
}

// TestLogStaysSmallWithLargeEntries checks that what a checkpoint leaves in the log is bounded in bytes.
func TestLogStaysSmallWithLargeEntries(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.CheckpointBytes = 2 << 20 })
	m := c.leader()
	const size = 256 << 10
	for i := range 100 {
		c.write("n", fmt.Sprint(i)+strings.Repeat("v", size))
	}
	waitForCheckpoint(t, m, 90)
	entries := m.log.newest(1<<40, 1<<40)
	if limit := uint64((reserveSize+4<<20)/size + 10); entries > limit {
		t.Errorf("the log has %d entries of %d KiB, want %d at most", entries, size>>10, limit)
	}
}

func TestNewest(t *testing.T) {
	log, err := openLog(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	for i := range uint64(10) {
		if err := log.StoreLog(&hraft.Log{Index: i + 1, Term: 1, Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		bytes         int64
		entries, want uint64
	}{{1, 5, 1}, {3*blockSize + 1, 5, 3}, {1 << 30, 5, 5}, {1 << 30, 50, 10}, {1 << 30, 0, 0}} {
		if got := log.newest(c.bytes, c.entries); got != c.want {
			t.Errorf("newest(%d, %d) = %d, want %d", c.bytes, c.entries, got, c.want)
		}
	}
}

// TestTrim fills a log far beyond what it is to hold and removes nearly all: the segments go, and do not count after a restart.
func TestTrim(t *testing.T) {
	dir := t.TempDir()
	log, err := openLog(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	const entries, size = 40, 900 << 10
	for i := range uint64(entries) {
		data := bytes.Repeat([]byte{byte(i)}, size)
		if i == 20 {
			data = bytes.Repeat(data, 5) // more than a segment
		}
		if err := log.StoreLog(&hraft.Log{Index: i + 1, Term: 1, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(log.SetUint64([]byte(keyTerm), 7), log.DeleteRange(1, entries-2), log.close()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, logFile, "*"))
	if most := keepFree + 4; err != nil || len(files) > most {
		t.Errorf("there are %d files, want %d at most: %v", len(files), most, err)
	}
	if log, err = openLog(dir, true); err != nil { // which checks it
		t.Fatal(err)
	}
	defer log.close()
	checkEdges(t, log, entries-1, entries)
	var entry hraft.Log
	if err := log.GetLog(entries, &entry); err != nil || !bytes.Equal(entry.Data, bytes.Repeat([]byte{entries - 1}, size)) {
		t.Errorf("the last entry: %d bytes, %v", len(entry.Data), err)
	}
	if term, err := log.GetUint64([]byte(keyTerm)); err != nil || term != 7 {
		t.Errorf("the term is %d, %v", term, err)
	}
}

// TestNoCheckpointBoundsTheLog takes no more writes when the log grows and no checkpoint can be written, until one can.
func TestNoCheckpointBoundsTheLog(t *testing.T) {
	c := newCluster(t, 1, nil)
	m := c.leader()
	c.write("a", "v")
	m.fsm.bytes.Store(maxLogBytes + 1) // as if no checkpoint could be written for long
	if _, err := m.Propose(c.soon(), put("b", "v")); !errors.Is(err, store.ErrFull) {
		t.Errorf("Propose = %v", err)
	}
	m.fsm.demand()
	waitForCheckpoint(t, m, 1)
	for m.fsm.bytes.Load() > 0 {
		if err := m.checkpointNow(c.soon()); err != nil {
			t.Fatal(err)
		}
	}
	c.write("b", "v")
	items, _ := m.store.All()
	if diff := cmp.Diff(2, len(items)); diff != "" {
		t.Error(diff)
	}
}

// TestLeaderWithoutADisk has the leader's disk refuse all writes: another server leads, and the old one takes no part until its disk
// takes writes again. Then it catches up with no help.
func TestLeaderWithoutADisk(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.same(c.write("before", "v"))
	broken := c.leader()
	refuse := &fs.PathError{Op: "write", Path: broken.log.path, Err: syscall.EIO}
	broken.log.writing.Lock()
	broken.log.distrust, broken.log.tried = refuse, time.Now().Add(time.Hour) // it is not tried again before the test says so
	broken.log.writing.Unlock()
	if _, err := broken.Propose(c.soon(), put("lost", "v")); err == nil {
		t.Error("a write is acknowledged by a leader without a disk")
	}
	revision := c.write("during", "v")
	if m := c.leader(); m == broken {
		t.Error("it still leads")
	}
	for i, m := range c.members {
		if m != broken {
			if err := m.store.Wait(c.soon(), revision); err != nil {
				t.Errorf("server %d: %v", i, err)
			}
		}
	}
	broken.log.writing.Lock()
	broken.log.tried = time.Time{}
	broken.log.writing.Unlock()
	c.same(c.write("after", "v"))
	if broken.OnProbation() {
		t.Error("it counts as one that has lost what it knew")
	}
}
