package tryboot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/conformance"
)

// machine is a board whose firmware knows [all] and, once after each restart that asks for it, [tryboot].
type machine struct {
	dir     string
	flag    bool // of the firmware: it is gone with the start that follows, and with the power
	started int
}

func newMachine(t *testing.T) *machine {
	m := &machine{dir: t.TempDir(), started: 2}
	for name, data := range map[string]string{
		"autoboot.txt": "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=4\n",
		"a":            string(make([]byte, 1<<20)), "b": string(make([]byte, 1<<20)),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *machine) Backend(t *testing.T) firmware.Backend {
	b, err := New(Config{
		Autoboot:  filepath.Join(m.dir, "autoboot.txt"),
		Slots:     map[string]Slot{"a": {2, filepath.Join(m.dir, "a")}, "b": {4, filepath.Join(m.dir, "b")}},
		Partition: func() (int, error) { return m.started, nil },
		Restart:   func(_ context.Context, try bool) error { m.flag = try; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// start is what the board's firmware does: it reads autoboot.txt by itself.
func (m *machine) start(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, "autoboot.txt"))
	if err != nil || len(data) > 512 {
		t.Fatalf("the firmware does not read %d bytes: %v", len(data), err)
	}
	partitions, section := map[string]string{}, "[all]"
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		} else if p, ok := strings.CutPrefix(line, "boot_partition="); ok {
			partitions[section] = p
		}
	}
	section = "[all]"
	if m.flag {
		section = "[tryboot]"
	}
	m.flag = false
	m.started = map[string]int{"2": 2, "4": 4}[partitions[section]]
}

// Boot starts the board. What runs by default goes on with a trial that has tries left, as the device does.
func (m *machine) Boot(t *testing.T) string {
	m.start(t)
	b := m.Backend(t)
	boot, err := b.Boot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if boot.Trying != "" && boot.Booted != boot.Trying && !boot.Spent {
		if err := b.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.start(t)
	}
	return map[int]string{2: "a", 4: "b"}[m.started]
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Machine { return newMachine(t) })
}

// The power may go at any time of a trial: the flag is gone with it, and what is started is the old system, which asks again.
func TestPowerCut(t *testing.T) {
	m := newMachine(t)
	if err := m.Backend(t).Arm(t.Context(), "b", 2); err != nil {
		t.Fatal(err)
	}
	if err := m.Backend(t).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.flag = false
	m.start(t)
	if boot, err := m.Backend(t).Boot(t.Context()); err != nil || boot != (firmware.Boot{Booted: "a", Default: "a", Trying: "b"}) {
		t.Errorf("%+v, %v", boot, err)
	}
	if got := m.Boot(t); got != "b" {
		t.Errorf("then %s was started", got)
	}
}

func TestMistakes(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(m.dir, "autoboot.txt")
	for _, data := range []string{"", "[all]\nboot_partition=7\n", "[tryboot]\nboot_partition=2\n"} {
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Backend(t).Boot(t.Context()); err == nil || !strings.Contains(err.Error(), "names no partition") {
			t.Errorf("%q: %v", data, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := m.Backend(t).Arm(t.Context(), "b", 1); err == nil {
		t.Error("armed without autoboot.txt")
	}
	if _, err := New(Config{Slots: map[string]Slot{"a": {2, "/a"}, "b": {2, "/b"}}}); err == nil {
		t.Error("both slots are started from one partition")
	}
}

func FuzzAutoboot(f *testing.F) {
	f.Add([]byte("[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=4\n# shoal: trying=b left=2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMachine(t)
		if err := os.WriteFile(filepath.Join(m.dir, "autoboot.txt"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Backend(t).Boot(t.Context()); err != nil {
			return
		}
		b := m.Backend(t)
		if err := b.Revert(t.Context()); err != nil {
			t.Fatal(err)
		}
		if boot, err := b.Boot(t.Context()); err != nil || boot.Trying != "" {
			t.Errorf("after a revert: %+v, %v", boot, err)
		}
	})
}
