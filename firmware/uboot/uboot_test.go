package uboot

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/conformance"
	"github.com/shoal-edge/shoal/test/need"
)

// machine boots by a real environment in files.
type machine struct {
	dir    string
	places []Place
	booted string
}

func newMachine(t *testing.T, copies int) *machine {
	m := &machine{dir: t.TempDir(), booted: "a"}
	disk := filepath.Join(m.dir, "env")
	if err := os.WriteFile(disk, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range copies {
		m.places = append(m.places, Place{Path: disk, Offset: int64(8192 + i*16384), Size: 8192})
	}
	for _, slot := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(m.dir, slot), make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Provision(m.places, "a", map[string]string{"bootcmd": "run shoal_boot", "ethaddr": "02:00:00:00:00:01"}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) Backend(t *testing.T) firmware.Backend {
	b, err := New(Config{
		Environment: m.places, Slots: map[string]string{"a": filepath.Join(m.dir, "a"), "b": filepath.Join(m.dir, "b")},
		Booted: func() (string, error) { return m.booted, nil }, Restart: func(context.Context) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (m *machine) Boot(t *testing.T) string {
	slot, err := PlayBoot(m.places)
	if err != nil {
		t.Fatal(err)
	}
	m.booted = slot
	return slot
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Machine { return newMachine(t, 2) })
}

func TestConformanceWithOneCopy(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.Machine { return newMachine(t, 1) })
}

// TestTornWrite: wherever the power goes while a copy is written, the environment is the older or the newer one.
func TestTornWrite(t *testing.T) {
	m := newMachine(t, 2)
	before, err := os.ReadFile(m.places[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	older, at, _, err := (&environment{places: m.places}).read()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Backend(t).Arm(t.Context(), "b", 3); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(m.places[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	written := m.places[1-at]
	for n := range written.Size {
		torn := bytes.Clone(before)
		copy(torn[written.Offset:written.Offset+n], after[written.Offset:])
		if err := os.WriteFile(written.Path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		vars, _, _, err := (&environment{places: m.places}).read()
		if err != nil {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
		if !cmp.Equal(vars, older) && vars[varTry] != "b" {
			t.Fatalf("cut after %d bytes: %v", n, vars)
		}
		if n > 256 {
			break // the rest is zeroes
		}
	}
}

// TestCounterWraps: the counter of the copies goes from 255 to 0.
func TestCounterWraps(t *testing.T) {
	m := newMachine(t, 2)
	env := environment{places: m.places}
	start, err := format(map[string]string{"ethaddr": "02:00:00:00:00:01"}, 252, m.places[0].Size, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(m.places[0], start); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		value := string(rune('a' + i%26))
		if err := env.write(map[string]string{"x": value}); err != nil {
			t.Fatal(err)
		}
		if vars, _, _, err := env.read(); err != nil || vars["x"] != value || vars["ethaddr"] == "" {
			t.Fatalf("write %d: %v, %v", i, vars, err)
		}
	}
}

// TestWithUBootsOwnTools: what we write, U-Boot's fw_printenv reads, and what fw_setenv writes, we read.
func TestWithUBootsOwnTools(t *testing.T) {
	printenv, setenv := need.Command(t, "fw_printenv"), need.Command(t, "fw_setenv")
	m := newMachine(t, 2)
	if err := m.Backend(t).Arm(t.Context(), "b", 3); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(m.dir, "fw_env.config")
	text := m.places[0].Path + " 0x2000 0x2000\n" + m.places[1].Path + " 0x6000 0x2000\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), printenv, "-c", config, varTry).CombinedOutput()
	if err != nil || string(out) != "shoal_try=b\n" {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), setenv, "-c", config, "their", "value").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	vars, _, _, err := (&environment{places: m.places}).read()
	if err != nil || vars["their"] != "value" || vars[varTry] != "b" {
		t.Fatalf("%v %v", vars, err)
	}
}

func FuzzEnvironment(f *testing.F) {
	good, err := format(map[string]string{"a": "b"}, 3, 64, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, true)
	f.Add([]byte("short"), false)
	f.Fuzz(func(t *testing.T, data []byte, redundant bool) {
		vars, counter, err := parse(data, redundant)
		if err != nil {
			return
		}
		again, err := format(vars, counter, int64(len(data))+64, redundant)
		if err != nil {
			return // such as a variable without a name
		}
		if back, _, err := parse(again, redundant); err != nil || !cmp.Equal(back, vars) {
			t.Fatalf("%v: %v, not %v", err, back, vars)
		}
	})
}
