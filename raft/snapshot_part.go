package raft

import (
	"encoding/binary"
	"errors"
	"fmt"

	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/uvarint"
)

// A snapshot is restored through the log, in parts that every server puts aside; the last one swaps the whole state. So
// everything about it is decided by the quorum, like any other write: it happens on every server at the same entry, or on none.
// (The library has a way of its own, which changes the leader's state before anybody else agreed to it.)
//
// A part is a record of its own version:
//
//	version byte, kind byte, the restore's identifier (16 bytes), the part's number, then, by kind:
//	items: their number, then for each resource, namespace, name and value
//	end:   the number of all items, the least revision and the least epoch that the state must get
//	abort: nothing
const partVersion = 2

const (
	partItems = iota + 1
	partEnd
	partAbort
)

var (
	errRestoreUnderWay = errors.New("a snapshot is being restored")
	errRestoreBroken   = errors.New("the restore was broken off")
)

// shift says how revisions and epochs follow from the log's entries and terms: a restored state must get higher ones than it
// ever had, in whatever cluster that was.
type shift struct{ Revision, Epoch uint64 }

func (s shift) revision(index uint64) uint64 { return index + s.Revision }
func (s shift) epoch(term uint64) uint64     { return term + s.Epoch }

// raised is the shift that gives an entry at least a revision and its term at least an epoch, and a new one in any case.
func (s shift) raised(index, term, revision, epoch uint64) shift {
	s.Epoch++
	if have := s.revision(index); have < revision {
		s.Revision += revision - have
	}
	if have := s.epoch(term); have < epoch {
		s.Epoch += epoch - have
	}
	return s
}

// part is one record of a restore.
type part struct {
	kind   byte
	id     [16]byte
	number uint64

	items []store.Item // of partItems, without revisions

	total, revision, epoch uint64 // of partEnd
}

func isPart(record []byte) bool { return len(record) > 0 && record[0] == partVersion }

// appendPartHead begins a record.
func appendPartHead(b []byte, kind byte, id [16]byte, number uint64) []byte {
	b = append(b, partVersion, kind)
	b = append(b, id[:]...)
	return binary.AppendUvarint(b, number)
}

func appendPartItem(b []byte, item *store.Item) []byte {
	b = uvarint.Append(b, item.Key.Resource)
	b = uvarint.Append(b, item.Key.Namespace)
	b = uvarint.Append(b, item.Key.Name)
	return uvarint.Append(b, item.Value)
}

func encodePart(p *part) []byte {
	b := appendPartHead(nil, p.kind, p.id, p.number)
	switch p.kind {
	case partItems:
		b = binary.AppendUvarint(b, uint64(len(p.items)))
		for i := range p.items {
			b = appendPartItem(b, &p.items[i])
		}
	case partEnd:
		for _, n := range []uint64{p.total, p.revision, p.epoch} {
			b = binary.AppendUvarint(b, n)
		}
	}
	return b
}

// decodePart reads a record. Each value is on its own, so that none keeps its neighbours alive.
func decodePart(b []byte) (*part, error) {
	if !isPart(b) {
		return nil, fmt.Errorf("%w: not a part of a snapshot", errRecord)
	}
	r := uvarint.Reader{Rest: b[1:]}
	p := &part{kind: r.Byte()}
	copy(p.id[:], r.Take(uint64(len(p.id))))
	p.number = r.Uvarint()
	switch p.kind {
	case partItems:
		count := r.Uvarint()
		if count > uint64(len(b)) {
			return nil, fmt.Errorf("%w: %d objects", errRecord, count)
		}
		for range count {
			item := store.Item{Key: store.Key{Resource: r.String(), Namespace: r.String(), Name: r.String()}}
			item.Value = append([]byte{}, r.Bytes()...)
			p.items = append(p.items, item)
		}
	case partEnd:
		p.total, p.revision, p.epoch = r.Uvarint(), r.Uvarint(), r.Uvarint()
	case partAbort:
	default:
		return nil, fmt.Errorf("%w: unknown kind %d of a part: this shoal is too old for its peers, upgrade it", errRecord, p.kind)
	}
	if r.Bad || len(r.Rest) > 0 {
		return nil, fmt.Errorf("%w: wrong length", errRecord)
	}
	return p, nil
}

// incomingState is what has come of a restore so far.
type incomingState struct {
	id    [16]byte
	term  uint64
	next  uint64
	items []store.Item
}

// old reports whether the state has an entry already, and notes that it has it now.
func (f *fsm) old(index uint64) bool {
	if index <= f.last {
		return true
	}
	f.last = index
	return false
}

// forgetBroken drops a restore whose leader has lost the lead: it cannot go on.
func (f *fsm) forgetBroken(term uint64) {
	if f.incoming != nil && f.incoming.term != term {
		f.incoming = nil
	}
}

// applyPart takes a part of a snapshot. Whether it fits depends on the log alone.
func (f *fsm) applyPart(entry *hraft.Log) any {
	p, err := decodePart(entry.Data)
	if err != nil {
		return f.fail(entry, err)
	}
	f.applied(entry)
	if p.kind == partItems && p.number == 0 {
		f.incoming = &incomingState{id: p.id, term: entry.Term}
	}
	in := f.incoming
	if in == nil || in.id != p.id {
		return errRestoreBroken
	}
	if p.kind == partItems && in.next == p.number {
		in.next++
		in.items = append(in.items, p.items...)
		return uint64(0)
	}
	f.incoming = nil // it is complete, or it cannot go on
	if p.kind != partEnd || in.next != p.number {
		return errRestoreBroken
	}
	if uint64(len(in.items)) != p.total {
		return fmt.Errorf("%w: %d objects of %d came", errRestoreBroken, len(in.items), p.total)
	}
	return f.swap(entry, in.items, p)
}

// swap makes the items the state. All of them get the new revision: none of their earlier ones can come to mean something else.
func (f *fsm) swap(entry *hraft.Log, items []store.Item, end *part) uint64 {
	f.setShift(f.shift.raised(entry.Index, entry.Term, max(end.revision, f.store.Revision()+1), end.epoch))
	revision := f.shift.revision(entry.Index)
	for i := range items {
		items[i].Revision = revision
	}
	f.store.Replace(revision, items)
	f.swapped.Store(true)
	for _, signal := range []chan struct{}{f.restored, f.due} {
		select {
		case signal <- struct{}{}:
		default:
		}
	}
	return revision
}
