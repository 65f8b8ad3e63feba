package raft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	hraft "github.com/hashicorp/raft"
)

// At its start a server reads all of its log, and must tell three things apart:
//
//   - A batch that a power cut interrupted. Nobody was told that it is stored, so it is as if it had never been. It can only be where
//     the log ends, and some of its sectors are what was there before: of a batch that was flushed, all are new.
//   - Damage. A sector is bad, or a file is not as it was made, and what the newest batch says must be there is not.
//   - Doubt. Where the log ends there are sectors that are neither new nor what was there before, and none of the place where a batch
//     would be is as before. That is a sector that the power cut has torn, or a batch that was flushed and went bad later.

// logScan is what the files of a log have.
type logScan struct {
	dir      string
	segments map[uint64]*segment
	sectors  map[uint64][]sector
	batches  map[uint64]*logBatch // those that are whole, by number
	highest  uint64               // the number in any sector
	content  []byte               // of the last batch that was read
}

// scanLog reads the files in a folder.
func scanLog(dir string) (s *logScan, err error) {
	s = &logScan{dir: dir, segments: map[uint64]*segment{}, sectors: map[uint64][]sector{}, batches: map[uint64]*logBatch{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	files, err := os.ReadDir(dir)
	if err != nil {
		return s, err
	}
	var content []byte
	for _, file := range files {
		id, ok := segmentID(file.Name())
		if !ok {
			continue
		}
		var segment *segment
		if segment, content, err = openSegment(dir, id, content); err != nil {
			return s, err
		}
		s.segments[id] = segment
		if err := s.add(segment, content); err != nil {
			return s, &DamagedError{segment.path(), err}
		}
	}
	return s, nil
}

func (s *logScan) close() error {
	var errs []error
	for _, segment := range s.segments {
		errs = append(errs, segment.file.Close())
	}
	return errors.Join(errs...)
}

// add takes a segment: its sectors, and the batches that follow one another from its beginning.
func (s *logScan) add(segment *segment, content []byte) error {
	sectors := make([]sector, segment.sectors)
	for i := range sectors {
		sectors[i] = readSector(content[i*sectorSize:(i+1)*sectorSize], segment.id, uint32(i))
		s.highest = max(s.highest, sectors[i].batch)
	}
	s.sectors[segment.id] = sectors
	before := uint64(0)
	for at := 0; at < len(sectors); {
		parts := wholeBatch(sectors[at:])
		number := sectors[at].batch
		if parts == 0 || number <= before { // torn or bad, or of an earlier use of the segment
			return nil
		}
		s.content = unpack(s.content, content[at*sectorSize:(at+parts)*sectorSize])
		b, err := decodeBatch(s.content, checkEntry)
		if err != nil {
			return fmt.Errorf("batch %d: %w", number, err)
		}
		if before > 0 && b.prev != before {
			return fmt.Errorf("batch %d follows batch %d, not %d", number, before, b.prev)
		}
		b.number = number
		b.settle(segment, uint32(at), uint32(parts), 0)
		s.batches[number] = b
		before = number
		at += parts
	}
	return nil
}

// wholeBatch is how many sectors the batch has that begins here, or 0 if one of them is not of it.
func wholeBatch(sectors []sector) int {
	first := sectors[0]
	parts := int(first.parts)
	if first.bad || first.batch == 0 || parts > len(sectors) {
		return 0
	}
	for i, s := range sectors[:parts] {
		if s.bad || s.batch != first.batch || int(s.part) != i || s.parts != first.parts {
			return 0
		}
	}
	return parts
}

// unpack takes a content out of its sectors. The buffer may be used again.
func unpack(buffer, sectors []byte) []byte {
	content := slices.Grow(buffer[:0], len(sectors)/sectorSize*sectorRoom)
	for at := 0; at < len(sectors); at += sectorSize {
		content = append(content, sectors[at+sectorHead:at+sectorSize]...)
	}
	return content
}

func checkEntry(index uint64, body []byte) error {
	k := logKey(index)
	return decodeEntry(k[:], body, &hraft.Log{})
}

// chain returns the batches that a log with a newest one needs, oldest first.
func (s *logScan) chain(newest uint64) ([]*logBatch, error) {
	b := s.batches[newest]
	if b == nil {
		return nil, &DamagedError{s.dir, fmt.Errorf("batch %d is not there", newest)}
	}
	for _, id := range b.segments {
		if s.segments[id] == nil {
			return nil, &DamagedError{segmentPath(s.dir, id), errors.New("it is gone")}
		}
	}
	if b.next != 0 && s.segments[b.next] == nil {
		return nil, &DamagedError{s.dir, fmt.Errorf("batch %d names a segment that does not count", newest)}
	}
	var chain []*logBatch
	for tail := b.tail; ; {
		chain = append(chain, b)
		if b.number == tail {
			break
		}
		before := s.batches[b.prev]
		if before == nil || before.number >= b.number || before.number < tail {
			return nil, &DamagedError{s.dir, fmt.Errorf("batch %d, before batch %d, is not there", b.prev, b.number)}
		}
		b = before
	}
	slices.Reverse(chain)
	return chain, nil
}

// index finds the entries of a log whose batches are a chain.
func (s *logScan) index(chain []*logBatch) ([]place, error) {
	var places []place
	base := uint64(0) // the index of the first
	for _, b := range chain {
		if from := b.last - b.entries + 1; b.entries > 0 {
			if len(places) > 0 && from > base && from <= base+uint64(len(places)) {
				places = places[:from-base]
			} else {
				places, base = nil, from
			}
			places = append(places, b.places...)
		}
		if next := base + uint64(len(places)); b.last+1 < next { // the newest ones were removed
			places = places[:max(b.last+1, base)-base]
		}
	}
	newest := chain[len(chain)-1]
	if newest.last == 0 {
		return nil, nil
	}
	if base > newest.first || base+uint64(len(places)) != newest.last+1 {
		return nil, &DamagedError{s.dir, fmt.Errorf("it lacks some of the entries %d to %d", newest.first, newest.last)}
	}
	return slices.Clone(places[newest.first-base:]), nil
}

// logEnd is what is at a place where the log may go on.
type logEnd struct {
	segment *segment
	at      uint32
	torn    bool
	doubt   error
}

// end looks at a place behind the newest batch.
func (s *logScan) end(segment *segment, at uint32, newest uint64) (logEnd, error) {
	e := logEnd{segment: segment, at: at}
	sectors := s.sectors[segment.id][at:]
	if len(sectors) == 0 {
		return e, nil
	}
	var top sector
	for _, s := range sectors {
		if s.batch > newest {
			e.torn = true
			if s.batch > top.batch {
				top = s
			}
		}
	}
	extent := min(int(top.parts), len(sectors))
	if !e.torn {
		// How long the batch was is not known, but it had one block at least, and where there are two there may have been two.
		extent = blockSectors
		if len(sectors) >= 2*blockSectors && !slices.ContainsFunc(sectors[:2*blockSectors], func(s sector) bool { return !s.bad }) {
			return e, &DamagedError{segment.path(), fmt.Errorf("sector %d and those behind it are bad", at)}
		}
	}
	old := func(s sector) bool { return !s.bad && s.batch <= newest }
	bad := -1
	for i, s := range sectors[:extent] {
		if old(s) {
			return e, nil // it was not written as a whole
		}
		if s.bad && bad < 0 {
			bad = i
		}
	}
	if bad >= 0 {
		e.doubt = fmt.Errorf("sector %d of %s is not sound, at the end of the log", int(at)+bad, segment.path())
	}
	return e, nil
}

// finish looks at all places where the log may go on, and returns the one where it does.
func (s *logScan) finish(newest *logBatch) (logEnd, error) {
	here, err := s.end(newest.segment, newest.at+newest.parts, newest.number)
	if err != nil {
		return here, err
	}
	if newest.next != 0 {
		there, err := s.end(s.segments[newest.next], 0, newest.number)
		if err != nil {
			return there, err
		}
		if there.torn || there.doubt != nil {
			if here.torn || here.doubt != nil {
				return here, &DamagedError{s.dir, fmt.Errorf("behind batch %d it is damaged in two places", newest.number)}
			}
			here = there
		}
	}
	// What is newer anywhere else was not written with the batch that this seems to be the end of.
	for _, id := range newest.segments {
		for i, sector := range s.sectors[id] {
			begin := uint32(i) - uint32(sector.part)
			if sector.batch > newest.number && (id != here.segment.id || begin != here.at) {
				return here, &DamagedError{segmentPath(s.dir, id), fmt.Errorf("what comes before batch %d is not there", sector.batch)}
			}
		}
	}
	return here, nil
}

// badBlocks are those with a bad sector that nothing is lost with.
func (s *logScan) badBlocks(chain []*logBatch) (blocks []block) {
	used := map[block]bool{}
	for _, b := range chain {
		for at := b.at; at < b.at+b.parts; at += blockSectors {
			used[block{b.segment, at}] = true
		}
	}
	for _, id := range chain[len(chain)-1].segments {
		for i, sector := range s.sectors[id] {
			place := block{s.segments[id], uint32(i) / blockSectors * blockSectors}
			if sector.bad && !used[place] {
				blocks, used[place] = append(blocks, place), true
			}
		}
	}
	return blocks
}

// block is one of a segment, by its first sector.
type block struct {
	segment *segment
	at      uint32
}

// tidy removes what a crash has left: segments that do not count yet, or not any more.
func (s *logScan) tidy(newest *logBatch) error {
	var errs []error
	counted := map[uint64]bool{}
	for _, id := range newest.segments {
		counted[id] = true
	}
	for id, segment := range s.segments {
		if !counted[id] {
			errs = append(errs, segment.file.Close(), os.Remove(segment.path()))
			delete(s.segments, id)
		}
	}
	files, err := os.ReadDir(s.dir)
	errs = append(errs, err)
	for _, file := range files {
		if strings.HasSuffix(file.Name(), segmentSuffix+".new") {
			errs = append(errs, os.Remove(filepath.Join(s.dir, file.Name())))
		}
	}
	return errors.Join(errs...)
}

// newest is the number of the newest whole batch.
func (s *logScan) newest() (number uint64) {
	for n := range s.batches {
		number = max(number, n)
	}
	return number
}
