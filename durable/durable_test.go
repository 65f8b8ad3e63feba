package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestReplace: what is not written to its end leaves the old file and nothing beside it.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	is := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("left: %v", entries)
		}
	}
	if err := Write(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	is("old")
	if stat, err := os.Stat(path); err != nil || stat.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", stat.Mode(), err)
	}
	broken := errors.New("broken")
	err := Replace(path, 0o600, func(w io.Writer) error {
		_, _ = w.Write([]byte("half"))
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	is("old")
	for _, want := range []bool{true, false} {
		if written, err := Update(path, []byte("new"), 0o640); err != nil || written != want {
			t.Errorf("written %t, %v", written, err)
		}
		is("new")
	}
	if written, err := Update(filepath.Join(dir, "a", "b", "file"), nil, 0o600); err != nil || !written {
		t.Errorf("in a new folder: %t, %v", written, err)
	}
	if err := Write(filepath.Join(dir, "none", "file"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}
