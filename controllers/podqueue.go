package controllers

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/store"
)

// Back-off of a pod that fits nowhere: it bounds the work when the cluster changes all the time.
const (
	firstPlacementBackoff = 50 * time.Millisecond
	maxPlacementBackoff   = 5 * time.Second
)

// podQueue holds the pods that have no node: those to try now, most important first, and those parked until something
// changes that may help them.
type podQueue struct {
	mu     sync.Mutex
	pods   map[store.Key]*waitingPod
	ready  podHeap
	count  uint64 // numbers arrivals
	wakes  uint64 // numbers changes that may help
	timer  *time.Timer
	signal chan struct{}
}

// waitingPod is one pod without a node.
type waitingPod struct {
	key        store.Key
	priority   int32
	generation int64
	near       bool // wants to be near other pods, so that a binding may help it

	arrival   uint64
	attempts  int
	notBefore time.Time
	seen      uint64 // wakes when it was last tried
	parked    bool
	woken     bool // parked only until notBefore
}

func newPodQueue() *podQueue {
	return &podQueue{pods: map[store.Key]*waitingPod{}, signal: make(chan struct{}, 1)}
}

// add takes a pod in. One that is known already is tried again only if what it asks for changed.
func (q *podQueue) add(key store.Key, priority int32, generation int64, near bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.pods[key]
	switch {
	case w == nil:
		w = &waitingPod{key: key, priority: priority, generation: generation, near: near}
		q.pods[key] = w
		q.push(w)
	case w.generation != generation:
		w.generation, w.near = generation, near
		q.release(w)
	}
}

// remove forgets a pod.
func (q *podQueue) remove(key store.Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.pods, key) // the heap drops it when its turn comes
}

// next waits for the next pod to try. It must be parked, retried or removed afterwards.
func (q *podQueue) next(ctx context.Context) (*waitingPod, bool) {
	for ctx.Err() == nil {
		if w := q.pop(); w != nil {
			return w, true
		}
		select {
		case <-q.signal:
		case <-ctx.Done():
		}
	}
	return nil, false
}

func (q *podQueue) pop() *waitingPod {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.ready.Len() > 0 {
		w := heap.Pop(&q.ready).(*waitingPod)
		if q.pods[w.key] == w {
			w.seen = q.wakes
			return w
		}
	}
	return nil
}

// park puts a pod that fits nowhere aside until wake, unless a wake came while it was tried.
func (q *podQueue) park(w *waitingPod) { q.putBack(w, false) }

// retry puts a pod whose binding failed aside for its back-off.
func (q *podQueue) retry(w *waitingPod) { q.putBack(w, true) }

func (q *podQueue) putBack(w *waitingPod, again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pods[w.key] != w {
		return
	}
	w.attempts++
	w.notBefore = time.Now().Add(backoff(firstPlacementBackoff, maxPlacementBackoff, w.attempts))
	w.parked = true
	if again || w.seen != q.wakes {
		q.release(w)
	}
}

// wake tries parked pods again, each after its back-off. With nearOnly it wakes those that want to be near others.
func (q *podQueue) wake(nearOnly bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakes++
	for _, w := range q.pods {
		if w.parked && !w.woken && (!nearOnly || w.near) {
			q.release(w)
		}
	}
}

// release makes a parked pod ready, now or when its back-off ends.
func (q *podQueue) release(w *waitingPod) {
	if !w.parked {
		return
	}
	if delay := time.Until(w.notBefore); delay > 0 {
		w.woken = true
		q.alarm()
		return
	}
	q.push(w)
}

func (q *podQueue) push(w *waitingPod) {
	w.parked, w.woken = false, false
	q.count++
	w.arrival = q.count
	heap.Push(&q.ready, w)
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// alarm sets the timer for the first of the back-offs that pods wait for.
func (q *podQueue) alarm() {
	var first time.Time
	for _, w := range q.pods {
		if w.woken && (first.IsZero() || w.notBefore.Before(first)) {
			first = w.notBefore
		}
	}
	if first.IsZero() {
		return
	}
	if q.timer != nil {
		q.timer.Stop()
	}
	q.timer = time.AfterFunc(time.Until(first), q.ring)
}

func (q *podQueue) ring() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for _, w := range q.pods {
		if w.woken && !w.notBefore.After(now) {
			q.push(w)
		}
	}
	q.alarm()
}

func (q *podQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.pods)
	if q.timer != nil {
		q.timer.Stop()
	}
}

// podHeap orders pods by priority, then by arrival.
type podHeap []*waitingPod

func (h podHeap) Len() int { return len(h) }
func (h podHeap) Less(i, j int) bool {
	if h[i].priority != h[j].priority {
		return h[i].priority > h[j].priority
	}
	return h[i].arrival < h[j].arrival
}
func (h podHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *podHeap) Push(x any)   { *h = append(*h, x.(*waitingPod)) }
func (h *podHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}
