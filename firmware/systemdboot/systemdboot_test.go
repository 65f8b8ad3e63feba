package systemdboot

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/conformance"
	"github.com/shoal-edge/shoal/test/need"
)

// machine is a device whose boot loader does what systemd-boot does with its entries.
type machine struct {
	dir    string
	booted string
}

func newMachine(t *testing.T) *machine {
	m := &machine{dir: t.TempDir(), booted: "a"}
	m.file(t, "shoal-a.conf", "sort-key shoal\nversion 1\n"+options("a"))
	for _, slot := range []string{"a.efi", "b.efi"} {
		if err := os.WriteFile(filepath.Join(m.dir, slot), make([]byte, 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func options(slot string) string {
	return fmt.Sprintf("title shoal %[1]s\nefi /shoal/%[1]s.efi\noptions quiet shoal.slot=%[1]s\n", slot)
}

func (m *machine) entries() string { return filepath.Join(m.dir, "loader", "entries") }

func (m *machine) file(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(m.entries(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.entries(), name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Backend(t *testing.T) firmware.Backend {
	b, err := New(Config{
		Entries: m.entries(),
		Slots:   map[string]Slot{"a": {filepath.Join(m.dir, "a.efi"), options("a")}, "b": {filepath.Join(m.dir, "b.efi"), options("b")}},
		Booted:  func() (string, error) { return m.booted, nil },
		Restart: func(context.Context) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// order is that of the boot loader: what has no tries left comes last, then the highest version first.
func (m *machine) order(t *testing.T) []entry {
	list, err := (&Backend{Config{Entries: m.entries()}}).entries()
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	spent := func(e entry) int {
		if e.counted && e.left == 0 {
			return 1
		}
		return 0
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Or(spent(a)-spent(b), b.version-a.version) })
	return list
}

// Boot is what systemd-boot does: the first entry is started, and if it is counted, its name says so first.
func (m *machine) Boot(t *testing.T) string {
	t.Helper()
	first := m.order(t)[0]
	if first.counted && first.left > 0 {
		name := filepath.Base(first.file)
		var left, done int
		if _, err := fmt.Sscanf(strings.TrimPrefix(name, "shoal-"+first.slot), "+%d-%d.conf", &left, &done); err != nil {
			left, done = first.left, 0
		}
		to := fmt.Sprintf("shoal-%s+%d-%d.conf", first.slot, left-1, done+1)
		if err := os.Rename(first.file, filepath.Join(m.entries(), to)); err != nil {
			t.Fatal(err)
		}
	}
	m.booted = first.slot
	return m.booted
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Machine { return newMachine(t) })
}

// TestBootctl has systemd's own program read the entries, which sorts them as the boot loader does.
func TestBootctl(t *testing.T) {
	need.Root(t)
	unpacked, err := filepath.Abs("../../.build/bootctl")
	if err != nil {
		t.Fatal(err)
	}
	bootctl := filepath.Join(unpacked, "usr", "bin", "bootctl")
	if _, err := os.Stat(bootctl); err != nil {
		need.Missing(t, "%v; run make bootctl", err)
	}
	libraries, err := filepath.Glob(filepath.Join(unpacked, "usr", "lib", "*", "systemd"))
	if err != nil || len(libraries) != 1 {
		t.Fatal(libraries, err)
	}
	m := newMachine(t)
	m.dir = t.TempDir()
	if err := unix.Mount("tmpfs", m.dir, "tmpfs", 0, ""); err != nil { // it wants the root of a file system
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(m.dir, unix.MNT_DETACH) })
	m.file(t, "shoal-a.conf", "sort-key shoal\nversion 9\n"+options("a"))
	if err := os.MkdirAll(filepath.Join(m.dir, "shoal"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, slot := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(m.dir, "shoal", slot+".efi"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	agree := func(when string) {
		t.Helper()
		cmd := exec.Command(bootctl, "--esp-path="+m.dir, "list", "--json=short", "--no-pager")
		cmd.Env = append(os.Environ(), "SYSTEMD_RELAX_ESP_CHECKS=1", "LD_LIBRARY_PATH="+libraries[0])
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want := m.order(t)
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			var got struct {
				Path, Options string
				TriesLeft     *int
			}
			if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if got.Path != want[0].file || !strings.Contains(got.Options, "shoal.slot="+want[0].slot) || (got.TriesLeft != nil) != want[0].counted ||
				want[0].counted && *got.TriesLeft != want[0].left {
				t.Errorf("%s: systemd reads %s, want %+v", when, lines.Text(), want[0])
			}
			want = want[1:]
		}
		if len(want) > 0 {
			t.Errorf("%s: systemd does not see %+v", when, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	agree("at first")
	do(m.Backend(t).Arm(t.Context(), "b", 2))
	agree("armed")
	for range 3 {
		m.Boot(t)
		agree("tried")
	}
	do(m.Backend(t).Refill(t.Context(), 10))
	agree("refilled")
	m.Boot(t)
	do(m.Backend(t).Commit(t.Context()))
	agree("committed")
	if m.Boot(t) != "b" {
		t.Error("what was committed is not started")
	}
	do(m.Backend(t).Arm(t.Context(), "a", 1))
	agree("armed again") // version 11 after 10
	if m.Boot(t) != "a" {
		t.Error("what was armed is not started")
	}
}

// TestPowerCuts: whatever a cut leaves of a change of names, there is something to start, and the device goes on.
func TestPowerCuts(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"two names of the trial":                   {"shoal-b+2-1.conf": "version 2\n" + options("b"), "shoal-b+1-2.conf": "version 2\n" + options("b")},
		"committed, and the old name is there too": {"shoal-b+1-2.conf": "version 2\n" + options("b"), "shoal-b.conf": "version 2\n" + options("b")},
		"an empty entry":                           {"shoal-b+3.conf": ""},
		"others' entries":                          {"debian.conf": "version 99\n", "shoal-b+3.conf.tmp": "x", ".shoal-b.conf.12": "x", "shoal-c.conf": "version 7\n"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			for file, text := range files {
				m.file(t, file, text)
			}
			b := m.Backend(t)
			boot, err := b.Boot(t.Context())
			if err != nil || boot.Default == "" {
				t.Fatalf("%+v, %v", boot, err)
			}
			if err := b.Revert(t.Context()); err != nil {
				t.Fatal(err)
			}
			if boot, err = b.Boot(t.Context()); err != nil || boot.Trying != "" {
				t.Errorf("%+v, %v", boot, err)
			}
			other := firmware.Other(boot.Default)
			m.booted = boot.Default
			if err := b.Arm(t.Context(), other, 3); err != nil {
				t.Fatal(err)
			}
			if got := m.Boot(t); got != other {
				t.Errorf("armed %s, and %s was started", other, got)
			}
		})
	}
}

// TestOpenTakesTheEntryAway: what is being written is never started.
func TestOpenTakesTheEntryAway(t *testing.T) {
	m := newMachine(t)
	m.file(t, "shoal-b.conf", "version 0\n"+options("b"))
	slot, err := m.Backend(t).Open(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slot.Close() }()
	if list := m.order(t); len(list) != 1 || list[0].slot != "a" {
		t.Errorf("%+v", list)
	}
}

func TestMistakes(t *testing.T) {
	if _, err := New(Config{Slots: map[string]Slot{"a": {"/a", "efi /a"}, "b": {"/b", ""}}}); !errors.Is(err, firmware.ErrNoSlot) {
		t.Error(err)
	}
	m := newMachine(t)
	if err := os.Remove(filepath.Join(m.entries(), "shoal-a.conf")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Backend(t).Boot(t.Context()); err == nil || !strings.Contains(err.Error(), "has no entry shoal-a.conf or shoal-b.conf") {
		t.Error(err)
	}
}
