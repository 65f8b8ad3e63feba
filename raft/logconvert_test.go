package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	hraft "github.com/hashicorp/raft"
)

// oldLog puts the log of a shoal from before there were segments into a folder.
func oldLog(t *testing.T, dir string, change func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile("testdata/log-bbolt.db")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, oldLogFile), change(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkConverted looks for what testdata/log-bbolt.db has: entries 16 to 50 of terms 2 and 3, a vote, and values of ours.
func checkConverted(t *testing.T, log *logStore) {
	t.Helper()
	checkEdges(t, log, 16, 50)
	for index := uint64(16); index <= 50; index++ {
		var e hraft.Log
		if err := log.GetLog(index, &e); err != nil || e.Term != 2+(index-11)/20 || string(e.Data) != fmt.Sprint("entry ", index) {
			t.Errorf("entry %d: %+v, %v", index, e, err)
		}
		if index == 18 && (e.Type != hraft.LogNoop || string(e.Extensions) != "extension") {
			t.Errorf("entry 18: %+v", e)
		}
	}
	term, err := log.GetUint64([]byte(keyTerm))
	vote, err2 := log.Get([]byte(keyVoteFor))
	voteTerm, err3 := log.GetUint64([]byte(keyVoteTerm))
	cluster, err4 := log.Get([]byte(keyCluster))
	if err := errors.Join(err, err2, err3, err4); err != nil || term != 5 || voteTerm != 5 || string(vote) != "s1|192.0.2.1:6443" ||
		string(cluster) != "0123456789abcdef" {
		t.Errorf("term %d, vote %d for %s, cluster %s, %v", term, voteTerm, vote, cluster, err)
	}
}

func TestOldLogIsConverted(t *testing.T) {
	same := func(b []byte) []byte { return b }
	for name, leave := range map[string]func(dir string) error{
		"at once":                func(string) error { return nil },
		"after a cut in between": func(dir string) error { return os.MkdirAll(filepath.Join(dir, logFile+".new"), 0o700) },
		"after a cut at the end": func(dir string) error {
			log, err := openLog(dir, false)
			if err != nil {
				return err
			}
			oldLog(t, dir, same) // it was not removed yet
			return log.close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			oldLog(t, dir, same)
			if err := leave(dir); err != nil {
				t.Fatal(err)
			}
			log, err := openLog(dir, false)
			if err != nil {
				t.Fatal(err)
			}
			defer log.close()
			checkConverted(t, log)
			if log.doubt != nil {
				t.Errorf("a doubt: %v", log.doubt)
			}
			if _, err := os.Stat(filepath.Join(dir, oldLogFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the old file: %v", err)
			}
		})
	}
}

// TestOldLogIsDamaged finds what is wrong with an old log before it converts it, and keeps a doubt about its newest write.
func TestOldLogIsDamaged(t *testing.T) {
	for _, kind := range damages() {
		t.Run(kind.name, func(t *testing.T) {
			dir := t.TempDir()
			oldLog(t, dir, func(b []byte) []byte {
				switch kind.name {
				case "bits flipped":
					return bytes.ReplaceAll(b, []byte("entry 4"), []byte("entrz 4"))
				case "gone":
					return b[:0]
				}
				return kind.do(b)
			})
			log, err := openLog(dir, false)
			if kind.name == "newest write flipped" {
				if err != nil || log.doubt == nil {
					t.Fatalf("%v", err)
				}
				defer log.close()
				return
			}
			if !isDamaged(err) {
				t.Errorf("openLog = %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, oldLogFile)); err != nil {
				t.Errorf("the old file: %v", err)
			}
			if err := openDir(t, dir); err != nil {
				t.Errorf("a server with it: %v", err)
			}
			if asides, err := filepath.Glob(filepath.Join(dir, oldLogFile+".damaged-*")); err != nil || len(asides) != 1 {
				t.Errorf("set aside: %v, %v", asides, err)
			}
		})
	}
}
