package self

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/conformance"
)

// TestMain lets the test binary be the launcher.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SHOAL_TEST_LAUNCH"); dir != "" {
		fmt.Println(Launch(dir, filepath.Join(dir, "made-with"), os.Args[1:], os.Stderr))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// machine starts copies as the launcher would.
type machine struct{ dir, booted string }

func (m *machine) Backend(t *testing.T) firmware.Backend {
	b, err := New(Config{Dir: m.dir, Booted: m.booted, Restart: func(context.Context) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (m *machine) Boot(t *testing.T) string {
	c := choose(m.dir, "/made-with")[0]
	if c.spend != nil {
		if err := c.spend(); err != nil {
			t.Fatal(err)
		}
	}
	m.booted = c.slot
	return c.slot
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Machine { return &machine{t.TempDir(), "a"} })
}

// program writes a copy that says who it is, in a shell.
func program(t *testing.T, path, says string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+says+" $SHOAL_SLOT \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestLaunch starts real programs: what the device was made with, a new one as often as it has tries, one that is no program at all.
func TestLaunch(t *testing.T) {
	dir := t.TempDir()
	start := func(want string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "agent", "--config", "x y")
		cmd.Env = append(os.Environ(), "SHOAL_TEST_LAUNCH="+dir, SlotVariable+"=z")
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Fatalf("started %q, %v, want %q", got, err, want)
		}
	}
	program(t, filepath.Join(dir, "made-with"), "first")
	start("first a agent --config x y")
	b, err := New(Config{Dir: dir, Booted: "a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	program(t, binary(dir, "b"), "second")
	if err := b.Arm(ctx, "b", 2); err != nil {
		t.Fatal(err)
	}
	start("second b agent --config x y")
	start("second b agent --config x y")
	start("first a agent --config x y")
	if boot, err := b.Boot(ctx); err != nil || !boot.Spent {
		t.Errorf("%+v, %v", boot, err)
	}
	if err := os.WriteFile(binary(dir, "b"), []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Arm(ctx, "b", 2); err != nil {
		t.Fatal(err)
	}
	start("first a agent --config x y")
	// A kept copy whose file is lost, and a record that is damaged: what the device was made with starts.
	if err := (record{Default: "b"}).save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(binary(dir, "b")); err != nil {
		t.Fatal(err)
	}
	start("first b agent --config x y")
	if err := os.WriteFile(filepath.Join(dir, recordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	start("first a agent --config x y")
}

func TestNotLaunched(t *testing.T) {
	if _, err := New(Config{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "shoal launch") {
		t.Errorf("got %v", err)
	}
}
