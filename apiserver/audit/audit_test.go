package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// session opens the log, records some events and ends.
func session(t *testing.T, cfg Config, events int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		for i := range events {
			l.Record(&Event{Verb: "get", AuditID: fmt.Sprint(i), User: authenticationv1.UserInfo{Username: "jane"}})
			synctest.Wait()
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func verified(t *testing.T, path string, lines int) *Summary {
	t.Helper()
	s, err := Verify(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Lines != lines {
		t.Errorf("%+v, want %d lines", s, lines)
	}
	return s
}

func TestChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit", "audit.log")
	session(t, Config{File: path}, 5)
	first := verified(t, path, 5)
	session(t, Config{File: path}, 3) // a restart goes on
	s := verified(t, path, 8)
	if first.Head == s.Head || s.Anchor != "" || s.Files != 1 || s.First.IsZero() {
		t.Errorf("%+v", s)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(bytes.SplitN(data, []byte("\n"), 2)[0], &e); err != nil {
		t.Fatal(err)
	}
	if e["kind"] != "Event" || e["apiVersion"] != "audit.k8s.io/v1" || e["level"] != "Metadata" || e["user"].(map[string]any)["username"] != "jane" {
		t.Errorf("%v", e)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}

	lines := bytes.SplitAfter(bytes.TrimSpace(data), []byte("\n"))
	lines[len(lines)-1] = append(lines[len(lines)-1], '\n')
	for name, change := range map[string]func() [][]byte{
		"a changed line": func() [][]byte {
			bad := bytes.Replace(lines[2], []byte("jane"), []byte("joan"), 1)
			return append(append(append([][]byte{}, lines[:2]...), bad), lines[3:]...)
		},
		"a line taken out": func() [][]byte { return append(append([][]byte{}, lines[:3]...), lines[4:]...) },
		"a line put in":    func() [][]byte { return append(append(append([][]byte{}, lines[:3]...), lines[2]), lines[3:]...) },
		"lines swapped":    func() [][]byte { return append([][]byte{lines[0], lines[2], lines[1]}, lines[3:]...) },
		"no event":         func() [][]byte { return append([][]byte{[]byte("hello\n")}, lines...) },
	} {
		forged := filepath.Join(t.TempDir(), "forged")
		if err := os.WriteFile(forged, bytes.Join(change(), nil), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(forged); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	cfg := Config{File: path, MaxBytes: 2000, MaxFiles: 2}
	session(t, cfg, 40)
	s, err := Verify(path)
	if err != nil || s.Files != 3 || s.Anchor == "" {
		t.Errorf("%+v %v", s, err)
	}
	for _, name := range []string{path, path + ".1", path + ".2"} {
		if info, err := os.Stat(name); err != nil || info.Size() > cfg.MaxBytes {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("an old file is left")
	}
	if err := os.Remove(path); err != nil { // a power cut just after the rotation
		t.Fatal(err)
	}
	session(t, cfg, 1)
	if _, err := Verify(path); err != nil {
		t.Error(err)
	}
}

func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	session(t, Config{File: path}, 3)
	data, _ := os.ReadFile(path)
	if err := os.WriteFile(path, data[:len(data)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	session(t, Config{File: path}, 2)
	if s := verified(t, path, 4); s.Torn != 1 {
		t.Errorf("%+v", s)
	}
}

// TestNothingBlocks records more than the queue holds while nobody writes.
func TestNothingBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	for range queued + 7 {
		l.Record(&Event{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s := verified(t, path, queued); s.Dropped != 7 {
		t.Errorf("%+v", s)
	}
	var none *Log
	none.Record(&Event{}) // no log, no record
}

// TestDiskFailures takes the file away from under the log and gives it back.
func TestDiskFailures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	write := func() error {
		e := &Event{}
		e.complete(l.cfg.Now())
		return l.write(e, true)
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	if err := l.file.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := write(); err == nil {
		t.Error("a closed file was written")
	}
	if err := write(); err != nil {
		t.Error(err)
	}
	if s := verified(t, path, 2); s.Dropped != 1 {
		t.Errorf("%+v", s)
	}
	if err := l.file.close(); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"annotations":{"audit.shoal.dev/dropped":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Verify(path); err == nil && s.Lines > 0 && s.Head == "" {
			t.Errorf("%+v", s)
		}
	})
}
