package raft

import (
	"bytes"
	"testing"

	hraft "github.com/hashicorp/raft"
)

// TestDeleteRange removes what the library removes: the oldest entries, the newest, and all of several pages, which a follower
// does after a checkpoint has come from the leader.
func TestDeleteRange(t *testing.T) {
	for _, c := range []struct {
		name              string
		from, to          uint64
		first, last, next uint64
	}{
		{"oldest", 1, 700, 701, 1000, 1001},
		{"newest", 301, 1000, 1, 300, 301},
		{"last one", 1000, 1000, 1, 999, 1000},
		{"all", 1, 1000, 0, 0, 5000},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			log, err := openLog(dir, true)
			if err != nil {
				t.Fatal(err)
			}
			var entries []*hraft.Log
			for i := range uint64(1000) {
				entries = append(entries, &hraft.Log{Index: i + 1, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 500)})
			}
			if err := log.StoreLogs(entries); err != nil {
				t.Fatal(err)
			}
			if err := log.DeleteRange(c.from, c.to); err != nil {
				t.Fatal(err)
			}
			checkEdges(t, log, c.first, c.last)
			if err := log.close(); err != nil {
				t.Fatal(err)
			}
			if log, err = openLog(dir, true); err != nil { // finds damage
				t.Fatal(err)
			}
			defer log.close()
			checkEdges(t, log, c.first, c.last)
			if err := log.StoreLog(&hraft.Log{Index: c.next, Term: 2}); err != nil {
				t.Fatal(err)
			}
			if c.first == 0 {
				c.first = c.next
			}
			checkEdges(t, log, c.first, c.next)
		})
	}
}

func checkEdges(t *testing.T, log *logStore, first, last uint64) {
	t.Helper()
	gotFirst, err1 := log.FirstIndex()
	gotLast, err2 := log.LastIndex()
	if err1 != nil || err2 != nil || gotFirst != first || gotLast != last {
		t.Errorf("the log has the entries %d to %d (%v, %v), not %d to %d", gotFirst, gotLast, err1, err2, first, last)
	}
}

// TestCompactionMeetsAppend has entries come while a compaction removes all those before, as after a restore.
func TestCompactionMeetsAppend(t *testing.T) {
	dir := t.TempDir()
	log, err := openLog(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	first, last := uint64(1), uint64(0)
	for range 100 {
		if err := log.StoreLogs([]*hraft.Log{{Index: last + 1, Term: 1}, {Index: last + 2, Term: 1}}); err != nil {
			t.Fatal(err)
		}
		last += 2
		appended := make(chan error, 1)
		go func() { appended <- log.StoreLog(&hraft.Log{Index: last + 1, Term: 1}) }()
		if err := log.DeleteRange(first, last); err != nil {
			t.Fatal(err)
		}
		if err := <-appended; err != nil {
			t.Fatal(err)
		}
		last++
		first = last
	}
	checkEdges(t, log, first, last)
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	if log, err = openLog(dir, true); err != nil { // finds damage
		t.Fatal(err)
	}
	defer log.close()
	checkEdges(t, log, first, last)
}
