package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/shoal-edge/shoal/uvarint"
)

// logBatch is a batch: what the log writes with one flush. It says how all of the log is after it: which entries there are, which segments, and
// the votes and other values. So the newest batch is all that is needed to know what must be there, and each one confirms those
// before it: a batch is written only after the one before was flushed.
//
// Its content is a version byte, a flags byte, the numbers below and the counted lists behind them, as uvarints; then for
// each entry its length and encodeEntry.
type logBatch struct {
	number uint64 // in its sectors
	sealed bool   // written at the end of an orderly stop: nothing came after it

	prev        uint64 // the number of the batch before; there may be a gap where one could not be written
	tail        uint64 // the number of the first batch that is still needed
	first, last uint64 // of the entries in the log, or 0
	next        uint64 // the segment that the log goes on with when this one is full, or 0
	segments    []uint64
	state       map[string][]byte
	entries     uint64

	segment *segment // where it is
	at      uint32   // its first sector
	parts   uint32
	places  []place // of its entries
}

// place is where an encoded entry is.
type place struct {
	segment *segment
	batch   uint32 // the first sector of its batch
	at      uint32 // counted in the batch's content
	size    uint32
	cost    uint32 // its share of the batch's bytes on the disk
}

// read reads an entry, and makes sure that what it reads is sound.
func (p place) read() ([]byte, error) {
	part := p.at / sectorRoom
	count := (p.at+p.size-1)/sectorRoom - part + 1
	b := make([]byte, count*sectorSize)
	if _, err := p.segment.file.ReadAt(b, int64(p.batch+part)*sectorSize); err != nil {
		if errors.Is(err, io.EOF) {
			err = &DamagedError{p.segment.path(), err}
		}
		return nil, err
	}
	for i := range count {
		if at := p.batch + part + i; readSector(b[i*sectorSize:(i+1)*sectorSize], p.segment.id, at).bad {
			return nil, &DamagedError{p.segment.path(), fmt.Errorf("sector %d is not sound", at)}
		}
	}
	from := p.at % sectorRoom
	return unpack(nil, b)[from : from+p.size], nil
}

const (
	batchVersion = 1
	flagSealed   = 1
)

func (b *logBatch) encode(to []byte) []byte {
	flags := byte(0)
	if b.sealed {
		flags = flagSealed
	}
	to = append(to, batchVersion, flags)
	for _, v := range []uint64{b.prev, b.tail, b.first, b.last, b.next, uint64(len(b.segments))} {
		to = binary.AppendUvarint(to, v)
	}
	for _, id := range b.segments {
		to = binary.AppendUvarint(to, id)
	}
	to = binary.AppendUvarint(to, uint64(len(b.state)))
	for _, k := range slices.Sorted(maps.Keys(b.state)) {
		to = uvarint.Append(uvarint.Append(to, k), b.state[k])
	}
	return binary.AppendUvarint(to, b.entries)
}

// headBound is how long the encoding is at most, without the entries.
func (b *logBatch) headBound() int {
	size := 2 + binary.MaxVarintLen64*(8+len(b.segments)+2*len(b.state))
	for k, v := range b.state {
		size += len(k) + len(v)
	}
	return size
}

// decodeBatch reads a content. Every entry is checked.
func decodeBatch(content []byte, check func(index uint64, body []byte) error) (*logBatch, error) {
	r := uvarint.Reader{Rest: content}
	if version := r.Byte(); version != batchVersion {
		return nil, fmt.Errorf("a batch has the unknown version %d", version)
	}
	flags := r.Byte()
	if flags&^flagSealed != 0 {
		return nil, fmt.Errorf("a batch has the unknown flags %#x", flags)
	}
	b := &logBatch{sealed: flags == flagSealed, prev: r.Uvarint(), tail: r.Uvarint(), first: r.Uvarint(), last: r.Uvarint(), next: r.Uvarint()}
	for range r.Count() {
		b.segments = append(b.segments, r.Uvarint())
	}
	b.state = map[string][]byte{}
	for range r.Count() {
		b.state[r.String()] = slices.Clone(r.Bytes())
	}
	b.entries = r.Count()
	if b.first > b.last || (b.first == 0) != (b.last == 0) || b.entries > 0 && b.entries > b.last-b.first+1 {
		return nil, errors.New("a batch has the wrong number of entries")
	}
	for i := range b.entries {
		body := r.Bytes()
		if r.Bad {
			break
		}
		if err := check(b.last-b.entries+1+i, body); err != nil {
			return nil, err
		}
		b.places = append(b.places, place{at: uint32(len(content) - len(r.Rest) - len(body)), size: uint32(len(body))})
	}
	if r.Bad {
		return nil, errors.New("a batch is cut off")
	}
	return b, nil
}

// settle says where a batch is, and shares its bytes among its entries, and those that are wasted before it.
func (b *logBatch) settle(s *segment, at, parts, wasted uint32) {
	b.segment, b.at, b.parts = s, at, parts
	rest := parts * sectorSize
	for i := range b.places {
		p := &b.places[i]
		p.segment, p.batch, p.cost = s, at, p.size
		if rest -= min(rest, p.size); i == len(b.places)-1 {
			p.cost += rest + wasted
		}
	}
}
