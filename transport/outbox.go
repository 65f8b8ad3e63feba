package transport

import (
	"hash/maphash"
	"log/slog"
	"slices"
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

const (
	// MaxMessage is the largest envelope that a carrier must move, and refuses to exceed.
	MaxMessage = 8 << 20
	// batchBytes is about how much one message carries; a larger item goes alone.
	batchBytes = 1 << 20

	// maxItem is the largest item that is sent at all: it must fit into a message of its own.
	maxItem = 6 << 20

	maxPendingBytes = 8 << 20
	maxPendingKeys  = 4096
)

// outbox numbers one direction's messages. One message (or whole state, in parts) is in flight at a time; what changes
// meanwhile is coalesced by key. Its user guards it with a lock.
type outbox struct {
	epoch   uint64
	sent    uint64 // the last number used
	acked   uint64 // the peer's position in this epoch
	pending queue
	flight  *flight
	// whole is set when the peer must get the whole state instead of the pending changes.
	whole bool

	// state holds a hash of each value that the peer has once it has applied what was sent, so that a link that resumes
	// costs the difference only; 0 stands for an unknown value. Nil: not tracked.
	state map[string]uint64
	seed  maphash.Seed
}

// flight is what was sent and not acknowledged.
type flight struct {
	seq    uint64           // the number of the last part
	resend *linkpb.Envelope // nil for a whole state, which is made anew instead
	extra  []Item           // what went with a whole state and cannot be made anew
	sentAt time.Time
	first  time.Time // when it was sent for the first time
	tries  int
}

func (f *flight) isWhole() bool { return f != nil && f.resend == nil }

func newOutbox(epoch uint64, track bool) outbox {
	o := outbox{epoch: epoch, pending: queue{maxKeys: maxPendingKeys, maxBytes: maxPendingBytes}}
	if track {
		o.state, o.seed = make(map[string]uint64), maphash.MakeSeed()
	}
	return o
}

// put queues a change; when the queue overflows the peer gets the whole state instead.
func (o *outbox) put(item Item) {
	if o.pending.put(item) {
		o.whole = true
	}
}

// next makes the next message with pending changes; nil while one is in flight, or when there is nothing to send.
func (o *outbox) next(now time.Time) *linkpb.Envelope {
	if o.flight != nil || o.whole || o.pending.empty() {
		return nil
	}
	items := o.pending.take(batchBytes)
	o.sent++
	e := &linkpb.Envelope{Epoch: o.epoch, Seq: o.sent, Items: toWire(items)}
	if o.acked != o.sent-1 {
		e.Base = o.acked
	}
	o.note(items)
	o.flight = &flight{seq: o.sent, resend: e, sentAt: now, first: now}
	return e
}

// full makes the messages of a whole state.
func (o *outbox) full(items []Item, now time.Time) []*linkpb.Envelope {
	o.whole = false
	if o.state != nil {
		clear(o.state)
	}
	o.note(items)
	var parts []*linkpb.Envelope
	for part := uint32(0); part == 0 || len(items) > 0; part++ {
		n := fit(items)
		o.sent++
		parts = append(parts, &linkpb.Envelope{
			Epoch: o.epoch, Seq: o.sent, Full: true, Part: part, More: n < len(items), Items: toWire(items[:n]),
		})
		items = items[n:]
	}
	o.flight = &flight{seq: o.sent, sentAt: now, first: now}
	return parts
}

// ack takes the peer's position. If that frees the way for the next message, it returns what has arrived; otherwise nil.
func (o *outbox) ack(epoch, seq uint64) *flight {
	if epoch != o.epoch || o.flight == nil || seq != o.flight.seq {
		return nil
	}
	arrived := o.flight
	o.acked, o.flight = seq, nil
	return arrived
}

// items are what the flight carries, but for what of a whole state can be made anew.
func (f *flight) items() []Item {
	if f.resend != nil {
		return fromWire(f.resend.Items)
	}
	return f.extra
}

// overdue returns the message to send again when its acknowledgement takes longer than it may, or asks for the whole
// state. The time doubles with each try: a slow peer is not a lossy one.
func (o *outbox) overdue(now time.Time, after time.Duration) (again *linkpb.Envelope) {
	if o.due(after).After(now) || o.flight == nil {
		return nil
	}
	o.flight.tries++
	o.flight.sentAt = now
	if o.flight.resend == nil {
		o.recall()
		o.whole = true
		return nil
	}
	return o.flight.resend
}

// recall puts what was in flight back, behind nothing newer, for the peer may not have got it.
func (o *outbox) recall() {
	if o.flight == nil {
		return
	}
	items := o.flight.items()
	o.flight = nil
	for _, item := range items {
		if !o.pending.has(item.Key) {
			o.put(item)
		}
	}
}

// due is when the message in flight is overdue; zero when there is none.
func (o *outbox) due(after time.Duration) time.Time {
	if o.flight == nil {
		return time.Time{}
	}
	return o.flight.sentAt.Add(after << min(o.flight.tries, 3))
}

// resume takes the position with which the peer came back, drops what is pending, and tells whether increments can go on from there.
func (o *outbox) resume(epoch, seq uint64) bool {
	lost := o.flight
	o.flight = nil
	o.pending.clear()
	switch {
	case epoch != o.epoch || seq == 0 || o.whole:
		return false
	case lost == nil:
		return seq == o.acked
	case seq == lost.seq:
		o.acked = seq
		return true
	case seq != o.acked || lost.resend == nil:
		return false
	}
	for _, item := range lost.resend.Items {
		o.state[item.Key] = 0
	}
	return true
}

// diff queues what the peer's state lacks of the given whole one. Changes that are queued already are newer.
func (o *outbox) diff(items []Item) {
	newer := o.pending
	o.pending = queue{maxKeys: newer.maxKeys, maxBytes: newer.maxBytes}
	listed := make(map[string]bool, len(items))
	for _, item := range items {
		listed[item.Key] = true
		if hash, ok := o.state[item.Key]; !ok || hash != o.hash(item.Value) {
			o.put(item)
		}
	}
	for key := range o.state {
		if !listed[key] {
			o.put(Item{Key: key, Deleted: true})
		}
	}
	for !newer.empty() {
		o.put(newer.shift())
	}
}

// note records what the peer will have.
func (o *outbox) note(items []Item) {
	if o.state == nil {
		return
	}
	for _, item := range items {
		if item.Deleted {
			delete(o.state, item.Key)
		} else {
			o.state[item.Key] = o.hash(item.Value)
		}
	}
}

func (o *outbox) hash(value []byte) uint64 { return maphash.Bytes(o.seed, value) | 1 }

// sendable drops items that no message can carry: one bad object must not keep a device's link from ever coming up.
func sendable(items []Item, logger *slog.Logger) []Item {
	for i, item := range items {
		if weight(item) <= maxItem && item.Key != "" {
			continue
		}
		kept := slices.Clone(items[:i])
		for _, item := range items[i:] {
			if weight(item) <= maxItem && item.Key != "" {
				kept = append(kept, item)
			} else {
				logger.Error("cannot send an item", "key", item.Key, "bytes", len(item.Value), "limit", maxItem)
			}
		}
		return kept
	}
	return items
}

// fit is how many of the items go into one message.
func fit(items []Item) int {
	total := 0
	for i, item := range items {
		if total += weight(item); i > 0 && total > batchBytes {
			return i
		}
	}
	return len(items)
}
