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

// TestGivesBackAfterABurst: once, when a collection comes that nothing but the passing of time brings.
func TestGivesBackAfterABurst(t *testing.T) {
	const rest = 300 * time.Millisecond
	logger := slog.New(slog.DiscardHandler)
	asked := func() uint64 { return read("/gc/cycles/forced:gc-cycles") }
	stop := Keep(Options{Logger: logger, settled: time.Hour, quiet: rest})
	defer stop()

	before := asked()
	time.Sleep(2 * rest)
	work(t, 1) // a resting process: one collection after a long time
	time.Sleep(rest / 3)
	if asked() != before {
		t.Fatal("memory was given back without a burst")
	}
	work(t, 3*burst)
	held := resident(t)
	time.Sleep(2 * rest)
	work(t, 1)
	await(t, "nothing was given back", func() bool { return asked() == before+1 })
	await(t, "the process has as much memory as before", func() bool { return resident(t) < held })
	for range 2 {
		time.Sleep(2 * rest)
		work(t, 1)
	}
	time.Sleep(rest / 3)
	if asked() != before+1 {
		t.Error("memory was given back again at rest")
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
