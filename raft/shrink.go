package raft

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// A bbolt file never gets smaller: pages that are free are used again. After a burst, such as a restore, or the removal of many
// objects, most of it may be empty. That is put right at a start, when nobody needs the file yet.

const (
	// shrinkAbove is the size below which a file is left as it is.
	shrinkAbove = 32 << 20
	// shrinkFactor is how many times larger than its content a file may be.
	shrinkFactor = 4
	shrinkBatch  = 1 << 20
)

// shrink copies a sound database into a smaller file if it is mostly empty. A disk that is too full for that keeps it as it is.
func shrink(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= shrinkAbove {
		return err
	}
	temp := path + ".small"
	defer func() { _ = os.Remove(temp) }() // it is not there if all went well
	opts := boltOptions()
	opts.ReadOnly = true
	from, err := openBolt(path, opts)
	if err != nil {
		return err
	}
	used, err := content(from)
	if err != nil || used*shrinkFactor > info.Size() {
		return errors.Join(err, from.Close())
	}
	err = copyInto(temp, from)
	if err = errors.Join(err, from.Close()); isFull(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("make %s smaller: %w", path, err)
	}
	return replaceFile(temp, path)
}

func copyInto(path string, from *bbolt.DB) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	opts := boltOptions()
	opts.NoSync, opts.NoGrowSync = true, true // it is flushed as a whole before it takes the other's place
	to, err := openBolt(path, opts)
	if err != nil {
		return err
	}
	return errors.Join(guard(path, func() error { return bbolt.Compact(to, from, shrinkBatch) }), to.Close())
}

// content adds up keys and values.
func content(db *bbolt.DB) (bytes int64, err error) {
	err = guard(db.Path(), func() error {
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(k, v []byte) error {
					bytes += int64(len(k) + len(v))
					return nil
				})
			})
		})
	})
	return bytes, err
}
