package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/raft/failpoint"
	"github.com/shoal-edge/shoal/uvarint"
)

// logStore keeps the log and the votes in a folder of segments; see segment, batch and logDisk. Entries follow one another without
// gaps.
type logStore struct {
	*logDisk
	voteTerm []byte // of a vote that is not kept yet: the library says the term first
}

// The library's names for a vote.
const (
	keyVoteTerm = "LastVoteTerm"
	keyVoteFor  = "LastVoteCand"
)

const (
	entryVersion = 1
	crcSize      = 4
)

// errAbsent has the wording that the library looks for.
var errAbsent = errors.New("not found")

// openLog opens the log in a folder. One that is not there is made: proven, if there can have been none before; see probation.
func openLog(dir string, proven bool) (*logStore, error) {
	path := filepath.Join(dir, logFile)
	if err := convertLog(dir); err != nil {
		return nil, err
	}
	found, err := exists(path)
	if err != nil {
		return nil, err
	}
	if !found {
		state := map[string][]byte{}
		if !proven {
			state[keyProbation] = Readmission{}.encode()
		}
		sectors, err := usualSectors(dir)
		if err != nil {
			return nil, err
		}
		if err := createLog(path, sectors, state, nil); err != nil {
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
	}
	disk, err := openLogDisk(path)
	if err != nil {
		return nil, err
	}
	return &logStore{logDisk: disk}, nil
}

// createLog makes a log under another name first: a crash leaves either none or a whole one. What fills it may be nil.
func createLog(path string, sectors uint32, state map[string][]byte, fill func(*logStore) error) error {
	temp := path + ".new"
	if err := makeEmpty(temp); err != nil {
		return err
	}
	const first = 1
	b := logBatch{tail: first, segments: []uint64{first}, state: state}
	s, err := createSegment(temp, first, sectors, packBatch(nil, first, 0, first, b.encode(nil)))
	if err != nil {
		return err
	}
	if err := s.file.Close(); err != nil {
		return err
	}
	if fill != nil {
		disk, err := openLogDisk(temp)
		if err != nil {
			return err
		}
		if err := errors.Join(fill(&logStore{logDisk: disk}), disk.close()); err != nil {
			return err
		}
	}
	return replaceFile(temp, path)
}

// join makes sure that the log goes on where the checkpoint ends. A log that ends before it was left by a crash right after
// a checkpoint came from the leader: the checkpoint has all of it.
func (s *logStore) join(head header) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	switch {
	case err != nil:
		return err
	case last == 0:
		return nil
	case first > head.Index+1:
		return &DamagedError{s.path, fmt.Errorf("it begins with entry %d, but the checkpoint ends with %d", first, head.Index)}
	case last < head.Index:
		return s.DeleteRange(first, last)
	}
	return nil
}

// IsMonotonic tells the library to leave no gaps: after a snapshot it empties the log.
func (s *logStore) IsMonotonic() bool { return true }

// FirstIndex returns the index of the oldest entry, or 0.
func (s *logStore) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first, nil
}

// LastIndex returns the index of the newest entry, or 0.
func (s *logStore) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last(), nil
}

// GetLog reads one entry.
func (s *logStore) GetLog(index uint64, entry *hraft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.first == 0 || index < s.first || index > s.last() {
		return hraft.ErrLogNotFound
	}
	p := s.index[index-s.first]
	body, err := p.read()
	if err != nil {
		return s.alarm.heed(err)
	}
	k := logKey(index)
	if err := decodeEntry(k[:], body, entry); err != nil {
		return s.alarm.heed(&DamagedError{p.segment.path(), err})
	}
	return nil
}

// StoreLog appends one entry.
func (s *logStore) StoreLog(entry *hraft.Log) error { return s.StoreLogs([]*hraft.Log{entry}) }

// StoreLogs appends entries, with one flush of the disk unless they take more than a segment.
func (s *logStore) StoreLogs(entries []*hraft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	bodies := make([][]byte, len(entries))
	for i, entry := range entries {
		if entry.Index != entries[0].Index+uint64(i) {
			return fmt.Errorf("%w: entry %d comes after entry %d", errRefused, entry.Index, entries[0].Index+uint64(i)-1)
		}
		k := logKey(entry.Index)
		if bodies[i] = encodeEntry(k[:], entry); len(bodies[i]) > largestEntry {
			return fmt.Errorf("%w: entry %d has %d bytes", errRefused, entry.Index, len(bodies[i]))
		}
	}
	// Without a leader's first entry, and changes of the members, nobody leads, and nothing can be read.
	vital := !slices.ContainsFunc(entries, func(e *hraft.Log) bool { return e.Type == hraft.LogCommand })
	store := func() error { return s.store(entries[0].Index, bodies, vital) }
	failpoint.Hit("log.store.before")
	var err error
	if vital {
		err = s.reserve.vital(store)
	} else {
		err = store()
	}
	failpoint.Hit("log.store.after")
	return err
}

// store appends encoded entries, the first of which has an index.
func (s *logStore) store(first uint64, bodies [][]byte, vital bool) error {
	return s.update(func() error {
		last := first - 1
		if have := s.last(); have > 0 && (last > have || last+1 < s.first) {
			return fmt.Errorf("%w: entry %d does not follow entries %d to %d", errRefused, last+1, s.first, have)
		}
		for rest := bodies; len(rest) > 0; {
			n := s.fit(rest)
			last += uint64(n)
			if err := s.append(&logChange{entries: rest[:n], last: last, vital: vital}); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
}

// largestEntry fits into a batch, with all that is in it besides.
const largestEntry = maxParts*sectorRoom - 1<<20

// fit is how many entries fit into one batch, and a segment of the usual size. One does always, in a segment of its own size.
func (s *logStore) fit(bodies [][]byte) (n int) {
	plain := logBatch{state: s.state}
	room := int(s.usual)*sectorRoom - plain.headBound() - lengthBound*(len(s.chain)+len(s.free)+2)
	for _, body := range bodies {
		if room -= len(body) + lengthBound; room < 0 && n > 0 {
			break
		}
		n++
	}
	return n
}

// DeleteRange removes entries at the beginning or at the end of the log, both ends included.
func (s *logStore) DeleteRange(first, last uint64) error {
	failpoint.Hit("log.truncate.before")
	err := s.reserve.vital(func() error {
		return s.update(func() error {
			// Entries may have come while a compaction was on its way here.
			c := logChange{last: s.last()}
			switch {
			case c.last == 0 || last < s.first || first > c.last:
				return nil
			case first <= s.first && last >= c.last:
				c.last = 0
			case first <= s.first:
				c.first = last + 1
			case last >= c.last:
				c.last = first - 1
			default:
				return fmt.Errorf("%w: to remove the entries %d to %d of %d to %d", errRefused, first, last, s.first, c.last)
			}
			if err := s.append(&c); err != nil {
				return err
			}
			return s.trim()
		})
	})
	failpoint.Hit("log.truncate.after")
	return err
}

// newest says how many entries at the end of the log have so many bytes of the disk together, at most so many entries. One is always
// among them.
func (s *logStore) newest(bytes int64, entries uint64) (n uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := len(s.index) - 1; i >= 0 && n < entries; i-- {
		if bytes -= int64(s.index[i].cost); bytes < 0 && n > 0 {
			break
		}
		n++
	}
	return n
}

// cost is how many bytes of the disk an entry takes, 0 if it is not there.
func (s *logStore) cost(index uint64) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.first == 0 || index < s.first || index > s.last() {
		return 0
	}
	return int64(s.index[index-s.first].cost)
}

// Set keeps a value of the library's. A vote is kept as a whole: a power cut between its term and its candidate would leave the
// candidate of an earlier term in the later one, and the library would repeat that vote without a look at the candidate's log.
func (s *logStore) Set(key, value []byte) error {
	term := s.voteTerm
	switch string(key) {
	case keyVoteTerm:
		s.voteTerm = bytes.Clone(value)
		return nil
	case keyVoteFor:
		s.voteTerm = nil
	default:
		term = nil
	}
	if have, err := s.Get(key); term == nil && err == nil && bytes.Equal(have, value) {
		return nil // the library says at each start what it has just read
	}
	failpoint.Hit("vote.store.before")
	err := s.insist(func() error {
		return s.reserve.vital(func() error {
			values := map[string][]byte{string(key): value}
			if term != nil {
				values[keyVoteTerm] = term
			}
			return s.put(values)
		})
	})
	failpoint.Hit("vote.store.after")
	return err
}

// put keeps values, if the disk takes them, all or none. One that is nil is removed.
func (s *logStore) put(values map[string][]byte) error {
	return s.update(func() error {
		state := maps.Clone(s.state)
		for k, v := range values {
			if state[k] = bytes.Clone(v); v == nil {
				delete(state, k)
			}
		}
		return s.append(&logChange{last: s.last(), state: state})
	})
}

// Get returns a value of the library's.
func (s *logStore) Get(key []byte) (value []byte, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.state[string(key)]
	if !ok {
		return nil, errAbsent
	}
	return bytes.Clone(v), nil
}

// SetUint64 keeps a number of the library's.
func (s *logStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 returns a number of the library's.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, &DamagedError{s.path, fmt.Errorf("the number %q has %d bytes", key, len(v))}
	}
	return binary.BigEndian.Uint64(v), nil
}

func logKey(index uint64) (k [8]byte) {
	binary.BigEndian.PutUint64(k[:], index)
	return k
}

func encodeEntry(key []byte, entry *hraft.Log) []byte {
	b := make([]byte, 0, 2+2*binary.MaxVarintLen64+len(entry.Data)+len(entry.Extensions)+crcSize)
	b = append(b, entryVersion, byte(entry.Type))
	b = binary.AppendUvarint(b, entry.Term)
	b = uvarint.Append(b, entry.Extensions)
	b = append(b, entry.Data...)
	return binary.BigEndian.AppendUint32(b, checksum(key, b))
}

func decodeEntry(key, value []byte, entry *hraft.Log) error {
	if len(key) != 8 || len(value) < crcSize {
		return errors.New("an entry is too short")
	}
	index := binary.BigEndian.Uint64(key)
	body := value[:len(value)-crcSize]
	if checksum(key, body) != binary.BigEndian.Uint32(value[len(body):]) {
		return fmt.Errorf("the checksum of entry %d is wrong", index)
	}
	r := uvarint.Reader{Rest: body}
	if version := r.Byte(); version != entryVersion {
		return fmt.Errorf("entry %d has the unknown version %d", index, version)
	}
	*entry = hraft.Log{Index: index, Type: hraft.LogType(r.Byte()), Term: r.Uvarint()}
	if extensions := r.Bytes(); len(extensions) > 0 {
		entry.Extensions = append([]byte{}, extensions...)
	}
	if r.Bad {
		return fmt.Errorf("entry %d is cut off", index)
	}
	entry.Data = append([]byte{}, r.Rest...)
	return nil
}
