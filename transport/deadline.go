package transport

import (
	"sync"
	"time"
)

// deadline is a point in time that can be moved; its channel is closed when it has passed.
type deadline struct {
	expire func() // called when it passes

	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{}
	round int // a timer of an earlier round that fires late changes nothing
}

func newDeadline(expire func()) *deadline {
	return &deadline{expire: expire, done: make(chan struct{})}
}

// set moves the deadline; the zero time takes it away.
func (d *deadline) set(at time.Time) {
	d.mu.Lock()
	d.round++
	round := d.round
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if isClosed(d.done) {
		d.done = make(chan struct{})
	}
	wait := time.Until(at)
	if !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() { d.pass(round) })
	}
	d.mu.Unlock()
	if !at.IsZero() && wait <= 0 {
		d.pass(round)
	}
}

func (d *deadline) pass(round int) {
	d.mu.Lock()
	if round != d.round {
		d.mu.Unlock()
		return
	}
	close(d.done)
	d.mu.Unlock()
	d.expire()
}

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}
