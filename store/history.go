package store

import "sort"

// eventOverhead is about what one event costs beside the bytes that it keeps alive.
const eventOverhead = 256

// history is the ring of the newest events, bounded in number and in bytes. All watchers read from it, so a watcher costs
// nothing while it waits and a slow one holds nothing back.
type history struct {
	ring     []Event
	head     int // index of the oldest event
	count    int
	bytes    int64
	maxCount int
	maxBytes int64

	// base is the revision where the history begins: nothing before it is known.
	base uint64
	// evicted is the newest revision that has left the ring.
	evicted uint64
	// floors holds, for each resource, the newest revision whose event has left the ring. A quiet resource can thus be
	// watched from an old revision even when a busy one has filled the ring.
	floors map[string]uint64
}

func newHistory(maxCount int, maxBytes int64, base uint64) *history {
	return &history{maxCount: maxCount, maxBytes: maxBytes, base: base, evicted: base, floors: map[string]uint64{}}
}

// cost counts the value that an event keeps alive beyond the live objects: the replaced or deleted one.
func cost(e *Event) int64 { return int64(len(e.Prev)) + eventOverhead }

func (h *history) at(i int) *Event { return &h.ring[(h.head+i)%len(h.ring)] }

func (h *history) add(e Event) {
	if h.count == len(h.ring) {
		h.grow()
	}
	h.ring[(h.head+h.count)%len(h.ring)] = e
	h.count++
	h.bytes += cost(&e)
}

func (h *history) grow() {
	ring := make([]Event, max(64, 2*len(h.ring)))
	for i := range h.count {
		ring[i] = *h.at(i)
	}
	h.ring, h.head = ring, 0
}

// trim evicts the oldest revisions until the bounds hold. A revision leaves as a whole.
func (h *history) trim() {
	for h.count > 0 && (h.count > h.maxCount || h.bytes > h.maxBytes) {
		revision := h.at(0).Item.Revision
		for h.count > 0 && h.at(0).Item.Revision == revision {
			oldest := h.at(0)
			h.bytes -= cost(oldest)
			h.floors[oldest.Item.Key.Resource] = revision
			*oldest = Event{}
			h.head = (h.head + 1) % len(h.ring)
			h.count--
		}
		h.evicted = revision
	}
}

// floor is the oldest revision after which all events of the resource are still known.
func (h *history) floor(resource string) uint64 { return max(h.base, h.floors[resource]) }

// after returns the position of the first event with a revision above the given one.
func (h *history) after(revision uint64) int {
	return sort.Search(h.count, func(i int) bool { return h.at(i).Item.Revision > revision })
}
