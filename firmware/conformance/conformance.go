// Package conformance owns the promises of firmware.Backend, as a suite that every backend passes unchanged.
package conformance

import (
	"context"
	"errors"
	"testing"

	"github.com/shoal-edge/shoal/firmware"
)

// Machine is a device under test: a backend, and what a start of the device does to its record.
type Machine interface {
	// Backend is a fresh backend, as after a start.
	Backend(t *testing.T) firmware.Backend
	// Boot starts the device, and returns the slot that was started. With panics set, the release does not come up: the device has to be
	// started again.
	Boot(t *testing.T) (slot string)
}

// Run takes a new machine, which runs slot a, through each promise.
func Run(t *testing.T, machine func(t *testing.T) Machine) {
	for name, test := range map[string]func(*testing.T, Machine){
		"a good update": goodUpdate, "a release that does not start": badUpdate, "a release that is not healthy": revert,
		"a fresh budget": refill, "what is in use is not written": inUse, "nothing to keep": nothingToKeep,
	} {
		t.Run(name, func(t *testing.T) { test(t, machine(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, m Machine, want firmware.Boot) {
	t.Helper()
	got, err := m.Backend(t).Boot(context.Background())
	must(t, err)
	if got != want {
		t.Fatalf("the record says %+v, want %+v", got, want)
	}
}

func started(t *testing.T, m Machine, want string) {
	t.Helper()
	if got := m.Boot(t); got != want {
		t.Fatalf("slot %s was started, not %s", got, want)
	}
}

func goodUpdate(t *testing.T, m Machine) {
	ctx, b := context.Background(), m.Backend(t)
	expect(t, m, firmware.Boot{Booted: "a", Default: "a"})
	slot, err := b.Open(ctx, "b")
	must(t, err)
	_, err = slot.WriteAt([]byte("new release"), 4096)
	must(t, err)
	must(t, slot.Sync())
	back := make([]byte, 11)
	if _, err = slot.ReadAt(back, 4096); err != nil || string(back) != "new release" {
		t.Fatalf("read back %q, %v", back, err)
	}
	must(t, slot.Close())
	source, err := m.Backend(t).Read(ctx, "b")
	must(t, err)
	back = make([]byte, 11)
	if _, err = source.ReadAt(back, 4096); err != nil || string(back) != "new release" {
		t.Fatalf("read %q, %v", back, err)
	}
	must(t, source.Close())
	started(t, m, "a") // what is written is not started by itself
	must(t, m.Backend(t).Arm(ctx, "b", 3))
	expect(t, m, firmware.Boot{Booted: "a", Default: "a", Trying: "b"})
	started(t, m, "b")
	expect(t, m, firmware.Boot{Booted: "b", Default: "a", Trying: "b"})
	must(t, m.Backend(t).Commit(ctx))
	expect(t, m, firmware.Boot{Booted: "b", Default: "b"})
	for range 5 {
		started(t, m, "b")
	}
}

func badUpdate(t *testing.T, m Machine) {
	must(t, m.Backend(t).Arm(context.Background(), "b", 2))
	started(t, m, "b")
	started(t, m, "b")
	started(t, m, "a")
	boot, err := m.Backend(t).Boot(context.Background())
	must(t, err)
	if boot.Booted != "a" || boot.Default != "a" {
		t.Fatalf("%+v", boot)
	}
	started(t, m, "a")
	must(t, m.Backend(t).Revert(context.Background()))
	expect(t, m, firmware.Boot{Booted: "a", Default: "a"})
}

func revert(t *testing.T, m Machine) {
	must(t, m.Backend(t).Arm(context.Background(), "b", 3))
	started(t, m, "b")
	must(t, m.Backend(t).Revert(context.Background()))
	started(t, m, "a")
	expect(t, m, firmware.Boot{Booted: "a", Default: "a"})
}

func refill(t *testing.T, m Machine) {
	ctx := context.Background()
	must(t, m.Backend(t).Arm(ctx, "b", 1))
	for range 5 {
		started(t, m, "b")
		must(t, m.Backend(t).Refill(ctx, 1))
	}
	started(t, m, "b")
	started(t, m, "a")
}

func inUse(t *testing.T, m Machine) {
	ctx := context.Background()
	running, err := m.Backend(t).Read(ctx, "a")
	if err != nil {
		t.Fatalf("the running slot cannot be read: %v", err)
	}
	must(t, running.Close())
	if _, err := m.Backend(t).Read(ctx, "c"); !errors.Is(err, firmware.ErrNoSlot) {
		t.Errorf("a slot that is not there is read: %v", err)
	}
	if _, err := m.Backend(t).Open(ctx, "a"); !errors.Is(err, firmware.ErrRunning) {
		t.Errorf("the running slot opens: %v", err)
	}
	if _, err := m.Backend(t).Open(ctx, "c"); !errors.Is(err, firmware.ErrNoSlot) {
		t.Errorf("a slot that is not there opens: %v", err)
	}
	must(t, m.Backend(t).Arm(ctx, "b", 1))
	if _, err := m.Backend(t).Open(ctx, "b"); !errors.Is(err, firmware.ErrRunning) {
		t.Errorf("the slot that is tried next opens: %v", err)
	}
	if err := m.Backend(t).Arm(ctx, "c", 1); !errors.Is(err, firmware.ErrNoSlot) {
		t.Errorf("a slot that is not there is armed: %v", err)
	}
}

func nothingToKeep(t *testing.T, m Machine) {
	ctx := context.Background()
	if err := m.Backend(t).Commit(ctx); !errors.Is(err, firmware.ErrNoTrial) {
		t.Errorf("committed without a trial: %v", err)
	}
	if err := m.Backend(t).Refill(ctx, 1); !errors.Is(err, firmware.ErrNoTrial) {
		t.Errorf("refilled without a trial: %v", err)
	}
	must(t, m.Backend(t).Arm(ctx, "b", 1))
	if err := m.Backend(t).Commit(ctx); !errors.Is(err, firmware.ErrNoTrial) {
		t.Errorf("committed before the release has run: %v", err)
	}
	must(t, m.Backend(t).Revert(ctx))
	must(t, m.Backend(t).Revert(ctx)) // once more changes nothing
	expect(t, m, firmware.Boot{Booted: "a", Default: "a"})
}
