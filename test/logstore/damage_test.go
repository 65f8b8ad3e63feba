package logstore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	hraft "github.com/hashicorp/raft"
)

// verdict is what became of damage.
type verdict string

const (
	noticed   verdict = "the log does not open"
	lost      verdict = "stored entries are gone, and nothing says so"
	wrongData verdict = "entries are read that were never stored"
	sound     verdict = "nothing is missing"
)

// TestDamage flips one bit in an entry that was stored and flushed: in the newest batch, and in an older one. It records what the
// decision for a log rests on, also where that is the behaviour of a library.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		log          string
		newest, past verdict
	}{
		{"shoal", noticed, noticed},
		{"raft-wal", lost, wrongData},
	} {
		for _, s := range stores() {
			if s.name != c.log {
				continue
			}
			for where, want := range map[string]struct {
				index   uint64
				verdict verdict
			}{"newest batch": {30, c.newest}, "older batch": {10, c.past}} {
				t.Run(c.log+"/"+where, func(t *testing.T) {
					if got := damaged(t, s, want.index); got != want.verdict {
						t.Errorf("%s, not as before: %s", got, want.verdict)
					}
				})
			}
		}
	}
}

// damaged stores three batches, flips a bit in the data of one entry, and looks.
func damaged(t *testing.T, s store, index uint64) verdict {
	t.Helper()
	dir := t.TempDir()
	log := s.mustOpen(t, dir)
	all := entries(1, 30, 300)
	for at := 0; at < len(all); at += 10 {
		if err := log.StoreLogs(all[at : at+10]); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, dir, all[index-1].Data)
	log, err := s.open(dir)
	if err != nil {
		return noticed
	}
	defer log.Close()
	if last, err := log.LastIndex(); err != nil || last < uint64(len(all)) {
		return lost
	}
	for _, want := range all {
		var got hraft.Log
		if err := log.GetLog(want.Index, &got); err != nil {
			return noticed
		}
		if !bytes.Equal(got.Data, want.Data) {
			return wrongData
		}
	}
	return sound
}

func flip(t *testing.T, dir string, data []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	below, err2 := filepath.Glob(filepath.Join(dir, "*", "*"))
	files, err = append(files, below...), errors.Join(err, err2)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if errors.Is(err, syscall.EISDIR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk(data, 50) { // a log may have something between two pieces
			at := bytes.Index(content, piece)
			if at < 0 {
				continue
			}
			content[at+20] ^= 1
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the entry is in no file")
}
