package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt has two root pages and writes them by turns; it opens a file by the newer one, or by the older if the newer one is not
// sound. That is right after a write that was torn. But when the newer one rots, the last transaction is gone, though it was
// acknowledged, and the file looks as if it had never been. So whoever must not forget looks at both.

// What a root page holds, behind the head of the page, all little endian: magic, version, page size and flags of 4 bytes each;
// root page, its sequence, free list, high water mark, transaction and the checksum of all before, of 8 bytes each.
const (
	rootAt       = 16
	rootPageSize = 8
	rootSum      = 56
	rootMagic    = 0xED0CDAED
)

// checkRoots returns what is wrong with the root pages of a database file that can be opened, or nil.
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
