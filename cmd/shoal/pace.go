package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is how much garbage a busy process may gather beyond what it has alive, where Go's default is as much again.
	headroom = 48 << 20
	// busy is a process whose last garbage collection was less than this ago.
	busy = time.Second
	// usual and most are percentages of what is alive.
	usual, most = 100, 800
)

// pace lets the garbage of a busy process with a small heap grow further before it is collected: the default costs a server under
// load a fifth of its time. At rest the default holds, and the memory goes back to the system.
// Who sets GOGC has decided otherwise.
func pace(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		afterNextCollection(ctx, time.Now(), usual)
	}
}

// afterNextCollection sets the pace once the next garbage collection is over, and so on until ctx ends. The runtime runs a finalizer
// for what became garbage.
func afterNextCollection(ctx context.Context, last time.Time, set int) {
	type sentinel struct{ _ [16]byte }
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		now := time.Now()
		want := usual
		if ctx.Err() == nil && now.Sub(last) < busy {
			want = percent(liveHeap())
		}
		if want != set {
			debug.SetGCPercent(want)
		}
		if ctx.Err() == nil {
			afterNextCollection(ctx, now, want)
		}
	})
}

// percent is the pace for a heap with so many bytes alive, in steps, so that it is seldom set.
func percent(live uint64) int {
	const step = 50
	if live == 0 {
		return usual
	}
	return int(max(usual, min(most, headroom*100/live)) / step * step)
}

func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
