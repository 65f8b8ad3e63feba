package memory

import (
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sink keeps garbage on the heap.
var sink []byte

// work makes garbage until the runtime has collected it so many times.
func work(t *testing.T, times uint64) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for until := read(collections) + times; read(collections) < until; {
		sink = make([]byte, 1<<18)
		if time.Now().After(deadline) {
			t.Fatal("nothing is collected")
		}
	}
}

func percentSet() int {
	set := debug.SetGCPercent(usual) // there is no other way to read it
	debug.SetGCPercent(set)
	return set
}

func await(t *testing.T, what string, right func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !right(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// TestPaceUnderLoad: collections that follow each other closely slow down, and the default comes back with the end.
func TestPaceUnderLoad(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(usual)
	defer debug.SetGCPercent(before)
	stop := Keep(Options{Logger: slog.New(slog.DiscardHandler), Pace: true})
	await(t, "the pace does not change", func() bool { work(t, 1); return percentSet() > usual })
	stop()
	if got := percentSet(); got != usual {
		t.Errorf("%d %% at the end", got)
	}
}

// TestGivesBack: once after the start and once after a burst, and not at rest.
func TestGivesBack(t *testing.T) {
	const rest = 300 * time.Millisecond
	asked := func() uint64 { return read("/gc/cycles/forced:gc-cycles") }
	before := asked()
	stop := Keep(Options{Logger: slog.New(slog.DiscardHandler), settled: rest, quiet: rest})
	defer stop()
	await(t, "nothing was given back after the start", func() bool { return asked() == before+1 })

	for range 3 {
		time.Sleep(rest)
		work(t, 1) // a resting process: one collection after a long time
	}
	time.Sleep(2 * rest)
	if asked() != before+1 {
		t.Fatal("memory was given back at rest")
	}
	work(t, 5*burst)
	held := resident(t)
	await(t, "nothing was given back after the burst", func() bool { return asked() == before+2 })
	await(t, "the process has as much memory as before", func() bool { return resident(t) < held })
	time.Sleep(2 * rest)
	if asked() != before+2 {
		t.Error("memory was given back twice")
	}
}

// resident is the memory of this process, in pages: proc_pid_statm(5).
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages
}
