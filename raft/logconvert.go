package raft

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/shoal-edge/shoal/uvarint"
)

// Before there were segments, the log was a bbolt file. Its buckets are the log, by index, and the votes; the sequence number of the
// first is the index of its last entry, that of the second a CRC over what is in it. A start makes segments of it, and removes it
// when they are in their place.

const (
	oldLogFile      = "raft.db"
	convertedAtOnce = 256
)

// convertLog makes the log in a folder one of segments, if it is an old one.
func convertLog(dir string) error {
	path, old := filepath.Join(dir, logFile), filepath.Join(dir, oldLogFile)
	isOld, err := exists(old)
	if err != nil || !isOld {
		return err
	}
	done, err := exists(path)
	if err != nil {
		return err
	}
	if !done {
		wrong, err := checkRoots(old)
		if err != nil {
			return err
		}
		if err := inspect(old, func(tx *bbolt.Tx) error { return convert(tx, path, wrong) }); err != nil {
			return fmt.Errorf("convert %s: %w", old, err)
		}
	}
	return errors.Join(os.Remove(old), syncDir(dir))
}

func convert(tx *bbolt.Tx, path string, wrong error) error {
	old := tx.DB().Path()
	state := map[string][]byte{}
	if wrong != nil {
		state[keyDoubt] = []byte(wrong.Error())
	}
	votes := tx.Bucket([]byte("votes"))
	var all []byte
	err := walk(old, votes, func(k, v []byte) error {
		state[string(k)] = append([]byte{}, v...)
		all = uvarint.Append(uvarint.Append(all, k), v)
		return nil
	})
	if err != nil {
		return err
	}
	if sum := uint64(checksum(all)); len(all) > 0 && votes.Sequence() != sum || len(all) == 0 && votes.Sequence() != 0 {
		return &DamagedError{old, errors.New("the checksum of its votes is wrong")}
	}
	sectors, err := usualSectors(filepath.Dir(path))
	if err != nil {
		return err
	}
	return createLog(path, sectors, state, func(to *logStore) error {
		var batch []*hraft.Log
		var refused error // by the disk: that is no damage
		last := uint64(0)
		entries := tx.Bucket([]byte("log"))
		err := walk(old, entries, func(k, v []byte) error {
			var entry hraft.Log
			if err := decodeEntry(k, v, &entry); err != nil {
				return err
			}
			if last != 0 && entry.Index != last+1 {
				return fmt.Errorf("entry %d follows entry %d", entry.Index, last)
			}
			last = entry.Index
			if batch = append(batch, &entry); len(batch) < convertedAtOnce {
				return nil
			}
			refused, batch = to.StoreLogs(batch), nil
			return refused
		})
		if refused != nil || err != nil {
			return cmp.Or(refused, err)
		}
		if end := entries.Sequence(); end != last {
			return &DamagedError{old, fmt.Errorf("its last entry should be %d, not %d", end, last)}
		}
		return to.StoreLogs(batch)
	})
}

// What a root page of bbolt holds, behind the head of the page, all little endian: magic, version, page size and flags of 4 bytes
// each; root page, its sequence, free list, high water mark, transaction and the checksum of all before, of 8 bytes each.
const (
	rootAt       = 16
	rootPageSize = 8
	rootSum      = 56
	rootMagic    = 0xED0CDAED
)

// checkRoots returns what is wrong with the root pages of a bbolt file, or nil. bbolt writes its two by turns and opens a file by the
// newer one that is sound: that is right after a write that was torn, but when the newer one rots, the last transaction is gone
// and nothing says so.
func checkRoots(path string) (wrong, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	at := int64(0)
	for range 2 {
		var page [rootAt + rootSum + 8]byte
		if _, err := f.ReadAt(page[:], at); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		root := page[rootAt:]
		sum := fnv.New64a()
		_, _ = sum.Write(root[:rootSum]) // never fails
		if binary.LittleEndian.Uint32(root) != rootMagic || binary.LittleEndian.Uint64(root[rootSum:]) != sum.Sum64() {
			return fmt.Errorf("the root page at byte %d is not sound", at), nil
		}
		at = int64(binary.LittleEndian.Uint32(root[rootPageSize:]))
	}
	return nil, nil
}
