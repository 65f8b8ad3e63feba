package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 1 << 20: 800, 12 << 20: 400, 16 << 20: 300, 40 << 20: 100, 400 << 20: 100} {
		if got := percent(live); got != want {
			t.Errorf("%d MB alive: %d %%, want %d %%", live>>20, got, want)
		}
	}
}

// TestPace: collections that follow each other closely slow down, and the default comes back with the end.
func TestPace(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(usual)
	defer debug.SetGCPercent(before)
	ctx, cancel := context.WithCancel(t.Context())
	pace(ctx)
	awaitPercent(t, func(p int) bool { return p > usual })
	cancel()
	awaitPercent(t, func(p int) bool { return p == usual })
}

// awaitPercent collects garbage until the pace is as it should be.
func awaitPercent(t *testing.T, right func(int) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		runtime.GC()
		now := debug.SetGCPercent(usual) // there is no other way to read it
		debug.SetGCPercent(now)
		if right(now) {
			return
		}
	}
	t.Fatal("the pace does not change")
}
