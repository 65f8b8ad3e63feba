package memory

import (
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

// pace is how far garbage may grow, after a collection that came so long after the one before it.
//
// The default costs a server under load a fifth of its time. At rest the default holds, and the memory goes back to the system.
func pace(since time.Duration) int {
	if since >= busy {
		return usual
	}
	return percent(read(liveHeap))
}

// percent is the pace for a heap with so many bytes alive, in steps, so that it is seldom set.
func percent(live uint64) int {
	const step = 50
	if live == 0 {
		return usual
	}
	return int(max(usual, min(most, headroom*100/live)) / step * step)
}

// Names of package runtime/metrics.
const (
	liveHeap = "/gc/heap/live:bytes"
	// collections are those that the runtime began, of itself or since two minutes had passed without one.
	collections = "/gc/cycles/automatic:gc-cycles"
)

func read(metric string) uint64 {
	sample := []metrics.Sample{{Name: metric}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
