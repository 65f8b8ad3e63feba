package controllers

import (
	"context"
	"sync"
	"time"
)

// Back-off of one key after failures in a row.
const (
	firstBackoff = 20 * time.Millisecond
	maxBackoff   = 30 * time.Second
)

// queue holds the keys that wait for work. A key is in it once, however often it is added, and is worked on by one worker
// at a time: added meanwhile, it comes again afterwards. The number of objects bounds it.
type queue[K comparable] struct {
	mu       sync.Mutex
	ready    []K
	waiting  map[K]bool // in ready, or to be when its worker is done
	active   map[K]bool
	failures map[K]int
	timers   map[K]*alarm
	closed   bool
	wake     chan struct{}
}

type alarm struct {
	at    time.Time
	timer *time.Timer
}

func newQueue[K comparable]() *queue[K] {
	return &queue[K]{
		waiting: map[K]bool{}, active: map[K]bool{}, failures: map[K]int{}, timers: map[K]*alarm{},
		wake: make(chan struct{}, 1),
	}
}

func (q *queue[K]) add(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addLocked(key)
}

func (q *queue[K]) addLocked(key K) {
	if q.waiting[key] || q.closed {
		return
	}
	q.waiting[key] = true
	if !q.active[key] {
		q.push(key)
	}
}

func (q *queue[K]) push(key K) {
	q.ready = append(q.ready, key)
	q.signal()
}

func (q *queue[K]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// addAfter adds a key later, at the earliest of the times asked for.
func (q *queue[K]) addAfter(key K, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	at := time.Now().Add(delay)
	if older := q.timers[key]; older != nil {
		if !at.Before(older.at) {
			return
		}
		older.timer.Stop()
	}
	a := &alarm{at: at}
	a.timer = time.AfterFunc(delay, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.timers[key] == a {
			delete(q.timers, key)
			q.addLocked(key)
		}
	})
	q.timers[key] = a
}

// next waits for a key. Every key that it returns must be given back to done.
func (q *queue[K]) next(ctx context.Context) (K, bool) {
	for {
		if key, ok := q.pop(); ok {
			return key, true
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			var none K
			return none, false
		}
	}
}

func (q *queue[K]) pop() (K, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var key K
	if len(q.ready) == 0 {
		return key, false
	}
	key, q.ready = q.ready[0], q.ready[1:]
	delete(q.waiting, key)
	q.active[key] = true
	if len(q.ready) > 0 {
		q.signal() // one token wakes one worker: pass it on
	}
	return key, true
}

func (q *queue[K]) done(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.active, key)
	if q.waiting[key] {
		q.push(key)
	}
}

// failed adds a key again after its back-off; succeeded forgets its failures.
func (q *queue[K]) failed(key K) {
	q.mu.Lock()
	q.failures[key]++
	delay := backoff(firstBackoff, maxBackoff, q.failures[key])
	q.mu.Unlock()
	q.addAfter(key, delay)
}

func (q *queue[K]) succeeded(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.failures, key)
}

// close stops all timers.
func (q *queue[K]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for key, a := range q.timers {
		a.timer.Stop()
		delete(q.timers, key)
	}
}

// backoff doubles with each failure, up to a limit.
func backoff(first, limit time.Duration, failures int) time.Duration {
	delay := first
	for range failures - 1 {
		if delay *= 2; delay >= limit {
			return limit
		}
	}
	return delay
}
