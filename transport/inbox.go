package transport

import (
	"errors"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// verdict is what an inbox says of a message that carries items.
type verdict int

const (
	vApply     verdict = iota + 1 // apply the batch, then call applied
	vPart                         // a part of a whole state; more follows
	vDuplicate                    // applied before: acknowledge again, do nothing
	vStale                        // from an older epoch of the peer: refuse
	vGap                          // something is missing: ask for the whole state
)

var errTooLarge = errors.New("transport: the whole state is larger than this end takes")

// batch is what a device or an owner applies at once.
type batch struct {
	epoch, seq uint64
	full       bool
	items      []Item
}

// inbox decides about the peer's messages: each is applied once and in order, whatever the carrier repeats or loses.
type inbox struct {
	epoch, seq uint64 // the peer's position, applied
	parts      *batch // a whole state so far; its seq is that of the last part
	next       uint32 // the part that must follow
	bytes      int
	limit      int // of the bytes of a whole state
}

// receive judges a message with a sequence number. A non-nil batch goes with vApply only.
func (in *inbox) receive(e *linkpb.Envelope) (verdict, *batch, error) {
	switch {
	case e.Epoch < in.epoch:
		return vStale, nil, nil
	case e.Epoch == in.epoch && e.Seq <= in.seq:
		return vDuplicate, nil, nil
	case in.parts != nil && e.Epoch == in.parts.epoch && e.Seq <= in.parts.seq:
		return vDuplicate, nil, nil
	case e.Full:
		return in.receiveFull(e)
	}
	base := e.Base
	if base == 0 {
		base = e.Seq - 1
	}
	if e.Epoch != in.epoch || base != in.seq {
		return vGap, nil, nil
	}
	in.drop()
	return vApply, &batch{epoch: e.Epoch, seq: e.Seq, items: fromWire(e.Items)}, nil
}

func (in *inbox) receiveFull(e *linkpb.Envelope) (verdict, *batch, error) {
	if e.Part == 0 {
		in.parts, in.next, in.bytes = &batch{epoch: e.Epoch, full: true}, 0, 0
	} else if in.parts == nil || e.Part != in.next || e.Epoch != in.parts.epoch || e.Seq != in.parts.seq+1 {
		in.drop()
		return vGap, nil, nil
	}
	items := fromWire(e.Items)
	for _, item := range items {
		in.bytes += weight(item)
	}
	if in.bytes > in.limit {
		in.drop()
		return 0, nil, errTooLarge
	}
	in.parts.seq = e.Seq
	in.parts.items = append(in.parts.items, items...)
	in.next++
	if e.More {
		return vPart, nil, nil
	}
	whole := in.parts
	in.drop()
	return vApply, whole, nil
}

// applied records that a batch is durable.
func (in *inbox) applied(b *batch) { in.epoch, in.seq = b.epoch, b.seq }

func (in *inbox) drop() { in.parts, in.next, in.bytes = nil, 0, 0 }

func fromWire(items []*linkpb.Item) []Item {
	out := make([]Item, 0, len(items))
	for _, item := range items {
		if item.GetKey() != "" {
			out = append(out, Item{Key: item.Key, Value: item.Value, Deleted: item.Deleted})
		}
	}
	return out
}

func toWire(items []Item) []*linkpb.Item {
	out := make([]*linkpb.Item, len(items))
	for i, item := range items {
		out[i] = &linkpb.Item{Key: item.Key, Value: item.Value, Deleted: item.Deleted}
		if item.Deleted {
			out[i].Value = nil
		}
	}
	return out
}
