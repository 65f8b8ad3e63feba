package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/shoal-edge/shoal/raft/failpoint"
)

// logStore keeps the log and the votes in one bbolt file. Entries follow one another without gaps.
//
// An entry's key is its index, big endian; its value is a version byte, the entry's type, its term, its data and a CRC over
// all of that and the key. bbolt keeps a sequence number for each bucket, in a page that every transaction writes anyway: the
// log's is the index of its last entry and the votes' is a CRC over them, so that nothing can be missing at the end.
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
	// deleteBatch bounds how long a compaction keeps appends waiting.
	deleteBatch = 512
	// logFill packs pages nearly full, since entries come in order.
	logFill = 0.95
)

// errAbsent has the wording that the library looks for.
var errAbsent = errors.New("not found")

func bucketLog() []byte   { return []byte("log") }
func bucketVotes() []byte { return []byte("votes") }

// openLog opens the log in a folder. One that is not there is made: proven, if there can have been none before; see probation.
func openLog(dir string, proven bool) (*logStore, error) {
	path := filepath.Join(dir, logFile)
	found, err := exists(path)
	if err != nil {
		return nil, err
	}
	if !found {
		if err := createLog(path, proven); err != nil {
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
	}
	if err := shrink(path); err != nil && !isDamaged(err) {
		return nil, err
	}
	file, err := openLogDisk(path)
	if err != nil {
		return nil, err
	}
	s := &logStore{logDisk: file}
	if file.last, err = s.LastIndex(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// createLog makes an empty file under another name first: a crash leaves either no log or a whole one.
func createLog(path string, proven bool) error {
	temp := path + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	db, err := bbolt.Open(temp, 0o600, boltOptions())
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(bucketLog())
		if err != nil {
			return err
		}
		votes, err := tx.CreateBucket(bucketVotes())
		if err != nil || proven {
			return err
		}
		return putVote(votes, []byte(keyProbation), Readmission{}.encode())
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return replaceFile(temp, path)
}

// verifyLog reads everything once: a server must not vote or lead with a log that it cannot trust.
func verifyLog(tx *bbolt.Tx) error {
	path := tx.DB().Path()
	next := uint64(0)
	err := walk(path, tx.Bucket(bucketLog()), func(k, v []byte) error {
		var entry hraft.Log
		if err := decodeEntry(k, v, &entry); err != nil {
			return err
		}
		if next != 0 && entry.Index != next {
			return fmt.Errorf("entry %d follows entry %d", entry.Index, next-1)
		}
		next = entry.Index + 1
		return nil
	})
	if err != nil {
		return err
	}
	if last := tx.Bucket(bucketLog()).Sequence(); next > 0 && last != next-1 || next == 0 && last != 0 {
		return &DamagedError{path, fmt.Errorf("its last entry should be %d, not %d", last, next-1)}
	}
	votes := tx.Bucket(bucketVotes())
	if err := walk(path, votes, func(_, _ []byte) error { return nil }); err != nil {
		return err
	}
	if votes.Sequence() != sumVotes(votes) {
		return &DamagedError{path, errors.New("the checksum of its votes is wrong")}
	}
	return nil
}

func sumVotes(votes *bbolt.Bucket) uint64 {
	var all []byte
	cursor := votes.Cursor()
	for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
		all = appendBytes(appendBytes(all, k), v)
	}
	if len(all) == 0 {
		return 0
	}
	return uint64(checksum(all))
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
	return s.edge((*bbolt.Cursor).First)
}

// LastIndex returns the index of the newest entry, or 0.
func (s *logStore) LastIndex() (uint64, error) {
	return s.edge((*bbolt.Cursor).Last)
}

func (s *logStore) edge(move func(*bbolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		if k, _ := move(tx.Bucket(bucketLog()).Cursor()); k != nil {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog reads one entry.
func (s *logStore) GetLog(index uint64, entry *hraft.Log) error {
	return s.view(func(tx *bbolt.Tx) error {
		k := logKey(index)
		v := tx.Bucket(bucketLog()).Get(k[:])
		if v == nil {
			return hraft.ErrLogNotFound
		}
		if err := decodeEntry(k[:], v, entry); err != nil {
			return &DamagedError{s.path, err}
		}
		return nil
	})
}

// StoreLog appends one entry.
func (s *logStore) StoreLog(entry *hraft.Log) error { return s.StoreLogs([]*hraft.Log{entry}) }

// StoreLogs appends entries in one transaction, with one flush of the disk.
func (s *logStore) StoreLogs(entries []*hraft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	newest := entries[len(entries)-1].Index
	failpoint.Hit("log.store.before")
	err := s.update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketLog())
		bucket.FillPercent = logFill
		for _, entry := range entries {
			k := logKey(entry.Index)
			if err := bucket.Put(k[:], encodeEntry(k[:], entry)); err != nil {
				return err
			}
		}
		return bucket.SetSequence(newest)
	}, func(last *uint64) { *last = newest })
	failpoint.Hit("log.store.after")
	return err
}

// DeleteRange removes entries, both ends included. Old ones go in batches, oldest first; the newest go at once, so that a
// crash never leaves a gap.
func (s *logStore) DeleteRange(first, last uint64) error {
	newest, err := s.LastIndex()
	if err != nil {
		return err
	}
	batch := uint64(deleteBatch)
	if last >= newest {
		batch = last - first + 1
	}
	for ; first <= last; first += batch {
		until := min(last, first+batch-1)
		var left uint64
		failpoint.Hit("log.truncate.before")
		remove := func(tx *bbolt.Tx) error {
			bucket := tx.Bucket(bucketLog())
			left = bucket.Sequence() // entries may have come while a compaction was on its way here
			for index := first; index <= until; index++ {
				k := logKey(index)
				if err := bucket.Delete(k[:]); err != nil {
					return err
				}
			}
			if until < left {
				return nil
			}
			// A cursor would not end: bbolt's Last goes round in circles when a transaction has emptied several pages.
			left = first - 1
			if k := logKey(left); bucket.Get(k[:]) == nil {
				left = 0
			}
			return bucket.SetSequence(left)
		}
		if err := s.reserve.vital(func() error { return s.update(remove, func(last *uint64) { *last = left }) }); err != nil {
			return err
		}
		failpoint.Hit("log.truncate.after")
	}
	return nil
}

// newest says how many entries at the end of the log have so many bytes together, at most so many entries. One is always among them.
func (s *logStore) newest(bytes int64, entries uint64) (n uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketLog()).Cursor()
		for k, v := cursor.Last(); k != nil && n < entries; k, v = cursor.Prev() {
			if bytes -= int64(len(v)); bytes < 0 && n > 0 {
				break
			}
			n++
		}
		return nil
	})
	return n, err
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
			return s.update(func(tx *bbolt.Tx) error {
				votes := tx.Bucket(bucketVotes())
				if term != nil {
					if err := votes.Put([]byte(keyVoteTerm), term); err != nil {
						return err
					}
				}
				return putVote(votes, key, value)
			}, func(*uint64) {})
		})
	})
	failpoint.Hit("vote.store.after")
	return err
}

// put keeps a value, if the disk takes it.
func (s *logStore) put(key, value []byte) error {
	return s.update(func(tx *bbolt.Tx) error { return putVote(tx.Bucket(bucketVotes()), key, value) }, func(*uint64) {})
}

func putVote(votes *bbolt.Bucket, key, value []byte) error {
	if err := votes.Put(key, value); err != nil {
		return err
	}
	return votes.SetSequence(sumVotes(votes))
}

// Get returns a value of the library's.
func (s *logStore) Get(key []byte) (value []byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketVotes()).Get(key)
		if v == nil {
			return errAbsent
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
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
	b = appendBytes(b, entry.Extensions)
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
	r := reader{rest: body}
	if version := r.byte(); version != entryVersion {
		return fmt.Errorf("entry %d has the unknown version %d", index, version)
	}
	*entry = hraft.Log{Index: index, Type: hraft.LogType(r.byte()), Term: r.uvarint()}
	if extensions := r.bytes(); len(extensions) > 0 {
		entry.Extensions = append([]byte{}, extensions...)
	}
	if r.bad {
		return fmt.Errorf("entry %d is cut off", index)
	}
	entry.Data = append([]byte{}, r.rest...) // the mapped file is not ours after the transaction
	return nil
}
