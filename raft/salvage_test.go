package raft

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestSalvage damages the log of an only server that has no checkpoint yet: all that can be read up to the damage is kept.
func TestSalvage(t *testing.T) {
	const objects = 60
	c := newCluster(t, 1, nil)
	for i := range objects {
		c.write(fmt.Sprint("n-", i), fmt.Sprintf("<value %d>", i))
	}
	c.kill(0)
	name := filepath.Base(pathOf(t, c.dirs[0], logFile))
	sound, err := os.ReadFile(filepath.Join(c.dirs[0], logFile, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []struct {
		name string
		do   func(b []byte) []byte
		kept int
	}{
		{"one entry", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("<value 40>"), []byte("<walue 40>")) }, 40},
		{"the file's end", func(b []byte) []byte { return b[:len(b)-1] }, objects},
		{"all", func(b []byte) []byte { return make([]byte, len(b)) }, -1},
		{"cut in an entry", func(b []byte) []byte { return b[:bytes.LastIndex(b, []byte("<value 50>"))+4] }, -1},
	} {
		t.Run(damage.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(c.dirs[0])); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, logFile, name), damage.do(bytes.Clone(sound)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := openDir(t, dir); err != nil { // sets it aside
				t.Fatal(err)
			}
			survivor, err := InspectFolder(dir)
			if damage.kept < 0 {
				if err == nil && survivor.Objects > objects || err != nil && !errors.Is(err, ErrNoState) {
					t.Errorf("%+v, %v", survivor, err)
				}
				return
			}
			if err != nil || survivor.Objects != damage.kept || survivor.Salvaged < damage.kept {
				t.Fatalf("%+v, %v; want %d objects", survivor, err, damage.kept)
			}
			founded, err := Recover(dir, Server{ID: "s0", Address: "127.0.0.1:1"})
			if err != nil || founded.Objects != damage.kept {
				t.Errorf("Recover = %+v, %v", founded, err)
			}
		})
	}
}

func FuzzSalvage(f *testing.F) {
	c := newCluster(f, 1, nil)
	for i := range 20 {
		c.write(fmt.Sprint("n-", i), "value")
	}
	c.kill(0)
	name := filepath.Base(pathOf(f, c.dirs[0], logFile))
	sound, err := os.ReadFile(filepath.Join(c.dirs[0], logFile, name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{})
	f.Add(uint32(24), []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		b := bytes.Clone(sound)
		for i, x := range change {
			b[(int(at)+i)%len(b)] ^= x
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := salvage(dir)
		if err != nil {
			t.Fatal(err)
		}
		for index, entry := range found {
			if entry.Index != index {
				t.Errorf("entry %d is found as %d", entry.Index, index)
			}
		}
	})
}
