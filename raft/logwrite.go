package raft

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/shoal-edge/shoal/uvarint"
)

// logChange is what a batch does to the log.
type logChange struct {
	entries [][]byte // at the end, as encodeEntry makes them
	first   uint64   // of the entries that are left, 0 to leave it
	last    uint64   // of the entries that are there then; 0 leaves none
	state   map[string][]byte
	sealed  bool
	vital   bool // it may have the room that entries leave
}

// append makes a change, durably. The writer holds writing.
func (f *logDisk) append(c *logChange) error {
	if f.unclean { // the place must have a batch before anything else is written, so that only one is ever unclean
		if err := f.put(&logChange{last: f.last()}); err != nil {
			return err
		}
		f.unclean = false
	}
	if len(f.bad) > 0 {
		if err := f.mend(); err != nil {
			return err
		}
	}
	return f.put(c)
}

// put writes one batch, and with it what must come before.
func (f *logDisk) put(c *logChange) error {
	b := &logBatch{first: f.first, last: c.last, sealed: c.sealed, state: f.state, entries: uint64(len(c.entries))}
	switch {
	case c.last == 0:
		b.first = 0
	case c.first > 0:
		b.first = c.first
	case b.first == 0 || uint64(len(c.entries)) > c.last-b.first:
		b.first = c.last - uint64(len(c.entries)) + 1
	}
	if c.state != nil {
		b.state = c.state
	}
	size := b.headBound()
	for _, body := range c.entries {
		size += len(body) + lengthBound
	}
	size += lengthBound * (len(f.chain) + len(f.free) + 2)
	leave := f.leaves()
	if len(c.entries) > 0 && !c.vital {
		leave += leaveEntries
	}
	if err := f.place(partsFor(size), leave); err != nil {
		return err
	}
	return f.commit(b, c.entries)
}

// leaves is how many sectors are left, while there is no segment to go on with, for the batch that names one.
func (f *logDisk) leaves() uint32 {
	plain := logBatch{state: f.state}
	return partsFor(plain.headBound()+lengthBound*(len(f.chain)+len(f.free)+2)) + blockSectors
}

// lengthBound is how long a length is at most, and the number of a segment.
const lengthBound = 10

// commit writes a batch at the place where the log goes on.
func (f *logDisk) commit(b *logBatch, entries [][]byte) error {
	f.number++
	b.number, b.prev = f.number, f.newest
	kept := f.kept(b)
	b.tail = f.chain[kept].begins
	if b.tail == 0 {
		b.tail = b.number
	}
	for _, s := range f.segments() {
		b.segments = append(b.segments, s.id)
	}
	slices.Sort(b.segments)
	if f.next != nil {
		b.next = f.next.id
	}
	f.content = b.encode(f.content[:0])
	for _, body := range entries {
		f.content = uvarint.Append(f.content, body)
		b.places = append(b.places, place{at: uint32(len(f.content) - len(body)), size: uint32(len(body))})
	}
	s := f.current()
	f.buffer = packBatch(f.buffer, s.id, f.at, b.number, f.content)
	if parts := uint32(len(f.buffer) / sectorSize); parts > s.sectors-f.at {
		return fmt.Errorf("%w: there is no room for a batch of %d sectors", errRefused, parts)
	}
	err := f.write(s, f.buffer, f.at)
	if err == nil {
		err = f.flush(s)
	}
	b.settle(s, f.at, uint32(len(f.buffer)/sectorSize), f.wasted)
	f.shrinkBuffers()
	if err != nil {
		f.unclean = true
		return err
	}
	f.done(b, kept)
	return nil
}

// kept is the place in chain of the oldest segment that is still needed after a batch.
func (f *logDisk) kept(b *logBatch) int {
	kept := len(f.chain) - 1
	if old := b.last - b.entries; b.last > 0 && f.first > 0 && max(b.first, f.first) <= min(old, f.last()) {
		kept = slices.Index(f.chain, f.index[max(b.first, f.first)-f.first].segment)
	}
	return kept
}

// done makes the state that which is on the disk now.
func (f *logDisk) done(b *logBatch, kept int) {
	if s := f.current(); s.begins == 0 {
		s.begins = b.number
	}
	if f.at, f.newest, f.sealed, f.noted = b.at+b.parts, b.number, b.sealed, f.next; len(b.places) > 0 {
		f.wasted = 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch old := b.last - b.entries; {
	case b.last == 0:
		f.index = nil
	case f.first == 0 || old < max(f.first, b.first):
		f.index = b.places
	default:
		from := max(f.first, b.first)
		f.index = append(f.index[from-f.first:min(old, f.last())-f.first+1], b.places...)
		if len(b.places) == 0 && cap(f.index) > 4*len(f.index) {
			f.index = slices.Clone(f.index)
		}
	}
	f.first, f.state = b.first, b.state
	for _, s := range f.chain[:kept] { // only now: nobody finds an entry there any more
		s.begins = 0
		f.free = append(f.free, s)
	}
	f.chain = slices.Delete(f.chain, 0, kept)
	if f.next == nil {
		f.next = f.spare(f.usual)
	}
}

// shrinkBuffers lets go of what a large batch needed.
func (f *logDisk) shrinkBuffers() {
	const most = 128 << 10
	if cap(f.buffer) > most {
		f.buffer = nil
	}
	if cap(f.content) > most {
		f.content = nil
	}
}

// place makes room for a batch where the log goes on, and moves on to another segment when the present one is full. That one must
// be named by a batch on the disk before, or it would not be looked for.
func (f *logDisk) place(need, leave uint32) error {
	for {
		room := f.current().sectors - f.at
		switch {
		case f.next != nil && need <= room, f.next == nil && need+leave <= room:
			return nil
		case f.next == nil || f.next.sectors < need && room >= blockSectors:
			if err := f.provide(need); err != nil {
				return err
			}
		case f.noted != f.next:
			if err := f.commit(&logBatch{first: f.first, last: f.last(), state: f.state}, nil); err != nil {
				return err
			}
		default:
			f.roll()
		}
	}
}

// roll goes on with the next segment.
func (f *logDisk) roll() {
	f.wasted += (f.current().sectors - f.at) * sectorSize
	_ = forgetCached(f.next.file) // it only costs something if not
	f.chain, f.at = append(f.chain, f.next), 0
	f.free = slices.DeleteFunc(f.free, func(s *segment) bool { return s == f.next })
	f.next = f.spare(f.usual)
}

// spare is a segment that is free and large enough, or nil.
func (f *logDisk) spare(sectors uint32) *segment {
	for _, s := range f.free {
		if s.sectors >= sectors {
			return s
		}
	}
	return nil
}

// provide finds or makes a segment to go on with.
func (f *logDisk) provide(need uint32) error {
	if f.next = f.spare(max(need, f.usual)); f.next != nil {
		return nil
	}
	id := uint64(0)
	for _, s := range f.segments() {
		id = max(id, s.id)
	}
	s, err := f.create(f.path, id+1, max(need, f.usual), nil)
	if err != nil {
		return err
	}
	f.next = s
	f.free = append(f.free, s)
	return nil
}

// mend makes blocks sound again that have a bad sector and nothing of use.
func (f *logDisk) mend() error {
	for _, b := range f.bad {
		if slices.Contains(f.chain, b.segment) && b.segment != f.current() || b.segment == f.current() && b.at < f.at {
			continue // it was written since
		}
		if err := f.write(b.segment, blankSectors(b.segment.id, b.at, blockSectors), b.at); err != nil {
			return err
		}
		if err := f.flush(b.segment); err != nil {
			return err
		}
	}
	f.bad = nil
	return nil
}

// trim removes segments when more are free than will be needed soon.
func (f *logDisk) trim() error {
	limit := keepFree * int64(f.usual) * sectorSize
	bytes := int64(0)
	for _, s := range f.free {
		bytes += s.bytes()
	}
	var drop []*segment
	for _, s := range f.free {
		if s != f.next && (bytes > limit || s.sectors > f.usual) {
			drop, bytes = append(drop, s), bytes-s.bytes()
		}
	}
	if len(drop) == 0 {
		return nil
	}
	f.free = slices.DeleteFunc(f.free, func(s *segment) bool { return slices.Contains(drop, s) }) // the batch does not name them
	if err := f.append(&logChange{last: f.last()}); err != nil {
		f.free = append(f.free, drop...)
		return err
	}
	var errs []error
	for _, s := range drop {
		errs = append(errs, s.file.Close(), os.Remove(s.path()))
	}
	return errors.Join(append(errs, syncDir(f.path))...)
}
