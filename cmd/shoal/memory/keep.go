// Package memory decides when a process collects its garbage and when it gives memory back.
//
// Go's collector and its scavenger know the heap only, and they wait for the heap to grow. A process that rests after its start or after a
// burst of work (a crowd of devices that came, an image that was pulled) keeps the pages of the program that this needed, and the
// garbage of it for minutes. On a board with 512 MB that is memory that pods could have.
package memory

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// settled is when a process has done what it does only at its start.
	settled = 20 * time.Second
	// quiet is how long nothing must have happened until a burst is over.
	quiet = 30 * time.Second
	// burst is how many collections, each within a third of that time after the one before, make it worth while to give memory back.
	burst = 5
)

// Options of Keep.
type Options struct {
	Logger *slog.Logger
	// Pace lets garbage grow further under load, if GOGC is not set: who sets it has decided otherwise.
	Pace bool

	settled, quiet time.Duration
}

// Keep looks after the memory of this process until stop is called, which returns when it is over.
func Keep(o Options) (stop func()) {
	if o.settled == 0 {
		o.settled, o.quiet = settled, quiet
	}
	o.Pace = o.Pace && os.Getenv("GOGC") == ""
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		o.run(ctx)
	}()
	return func() { cancel(); <-over }
}

func (o Options) run(ctx context.Context) {
	collected := make(chan struct{}, 1)
	afterCollections(ctx, collected)
	over := time.NewTimer(o.settled) // the start is a burst
	defer over.Stop()
	last, seen, set := time.Now(), read(collections), usual
	var dense uint64 // collections that followed each other closely
	for {
		select {
		case <-ctx.Done():
			if set != usual {
				debug.SetGCPercent(usual)
			}
			return
		case <-over.C:
			o.giveBack()
			dense = 0
		case <-collected:
			count, now := read(collections), time.Now()
			if count == seen {
				continue // it was asked for, by giveBack
			}
			since, more := now.Sub(last), count-seen
			last, seen = now, count
			if want := pace(since); o.Pace && want != set {
				debug.SetGCPercent(want)
				set = want
			}
			if since >= o.quiet/3 {
				continue
			}
			if dense += more; dense >= burst {
				over.Reset(o.quiet)
			}
		}
	}
}

// giveBack returns what the process does not need at rest: free heap, and the pages of the program itself.
func (o Options) giveBack() {
	debug.FreeOSMemory()
	if err := dropProgramPages(); err != nil {
		o.Logger.Debug("the program's pages stay in memory", "error", err)
	}
}

// afterCollections tells of each garbage collection until ctx ends: the runtime runs a finalizer for what became garbage.
func afterCollections(ctx context.Context, collected chan<- struct{}) {
	type sentinel struct{ _ [16]byte }
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		select {
		case collected <- struct{}{}:
		default: // it is still to look at the one before
		}
		if ctx.Err() == nil {
			afterCollections(ctx, collected)
		}
	})
}
