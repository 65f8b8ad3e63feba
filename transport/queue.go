package transport

// queue holds changes that wait to be sent, one per key: a newer change of a key replaces the older one and moves to the
// end, so that what depends on another key never overtakes it. It is bounded by keys and bytes.
type queue struct {
	maxKeys, maxBytes int
	slots             []Item         // the slot of a replaced item has an empty key
	first             int            // the number of slots[0]
	index             map[string]int // key -> number of its slot
	bytes             int
}

// put adds a change. When the queue is full, the oldest changes are dropped, and put says so.
func (q *queue) put(item Item) (dropped bool) {
	if q.index == nil {
		q.index = make(map[string]int)
	}
	if at, ok := q.index[item.Key]; ok {
		q.clearSlot(at - q.first)
	}
	q.index[item.Key] = q.first + len(q.slots)
	q.slots = append(q.slots, item)
	q.bytes += weight(item)
	for len(q.index) > q.maxKeys || (q.bytes > q.maxBytes && len(q.index) > 1) {
		q.shift()
		dropped = true
	}
	if len(q.slots) > 2*len(q.index)+16 {
		q.compact()
	}
	return dropped
}

// take removes the oldest changes, up to the given weight but at least one.
func (q *queue) take(limit int) []Item {
	var out []Item
	for total := 0; len(q.index) > 0; {
		q.skip()
		if next := weight(q.slots[0]); len(out) > 0 && total+next > limit {
			break
		} else {
			total += next
		}
		out = append(out, q.shift())
	}
	if len(q.index) == 0 {
		q.clear()
	}
	return out
}

func (q *queue) has(key string) bool {
	_, ok := q.index[key]
	return ok
}

func (q *queue) empty() bool { return len(q.index) == 0 }

func (q *queue) clear() { q.slots, q.first, q.index, q.bytes = nil, 0, nil, 0 }

// shift removes the oldest change of a queue that is not empty.
func (q *queue) shift() Item {
	q.skip()
	item := q.slots[0]
	q.clearSlot(0)
	delete(q.index, item.Key)
	return item
}

// skip drops replaced slots from the front.
func (q *queue) skip() {
	n := 0
	for n < len(q.slots) && q.slots[n].Key == "" {
		n++
	}
	q.slots = q.slots[n:]
	q.first += n
}

func (q *queue) clearSlot(at int) {
	q.bytes -= weight(q.slots[at])
	q.slots[at] = Item{}
}

func (q *queue) compact() {
	kept := make([]Item, 0, len(q.index))
	for _, item := range q.slots {
		if item.Key != "" {
			q.index[item.Key] = q.first + len(kept)
			kept = append(kept, item)
		}
	}
	q.slots = kept
}

// weight is about what an item costs in an envelope.
func weight(item Item) int { return len(item.Key) + len(item.Value) + 12 }
