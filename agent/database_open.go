package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// openDatabase opens the file, or sets a damaged one aside and starts empty: the control plane sends everything again, and
// until it does, running containers are left alone.
func openDatabase(dir string, now time.Time, logger *slog.Logger) (*database, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	file := filepath.Join(dir, "agent.db")
	d, err := tryOpen(file)
	var system *fs.PathError
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("data folder %s is in use by another process", dir)
	case errors.As(err, &system): // the disk does not give or take; what is in the file may be fine
		return nil, fmt.Errorf("data folder: %w", err)
	}
	aside := file + ".damaged-" + now.UTC().Format("20060102T150405Z")
	if renameErr := os.Rename(file, aside); renameErr != nil {
		return nil, errors.Join(fmt.Errorf("%s is damaged: %w", file, err), renameErr)
	}
	logger.Error("the database is damaged and was set aside; starting empty, running containers are left alone until the control plane sends what this device should run",
		"file", file, "aside", aside, "err", err)
	return tryOpen(file)
}

// tryOpen opens the file after it has read all of it, so that damage shows now and not in the middle of the work. bbolt finds
// some damage in a goroutine of its own when it opens a file for writing, and ends the process; so the file is read first.
func tryOpen(file string) (*database, error) {
	_, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = create(file)
	}
	if err == nil {
		err = inspect(file)
	}
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(file, 0o600, options())
	if err != nil {
		return nil, err
	}
	return &database{db: db}, nil
}

func options() *bbolt.Options { return &bbolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true} }

// create makes an empty database under another name first: a power cut leaves either none or a whole one.
func create(file string) error {
	temp := file + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	db, err := bbolt.Open(temp, 0o600, options())
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets() {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, file); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// inspect reads a file and believes nothing of it. Its errors are those of the file system, or else say what is wrong.
func inspect(file string) (err error) {
	if err := readable(file); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // what the file says to be at a place beyond its end
	var db *bbolt.DB
	defer func() {
		if r := recover(); r != nil { // bbolt panics on pages that make no sense
			err = fmt.Errorf("%v", r)
		}
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	read := options()
	read.ReadOnly = true
	if db, err = bbolt.Open(file, 0o600, read); err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets() {
			if err := verify(tx.Bucket(name)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

// readable reads the whole file, so that an error of the disk is not taken for damage.
func readable(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, f)
	if err == nil && n == 0 {
		err = errors.New("it is empty")
	}
	return errors.Join(err, f.Close())
}

const sealSize = 4

// seal makes a value with a checksum over itself and its key.
func seal(key, value []byte) []byte {
	sealed := make([]byte, 0, len(value)+sealSize)
	return binary.BigEndian.AppendUint32(append(sealed, value...), checksum(key, value))
}

func checksum(key, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(key, table), table, value)
}

// unseal returns the value; what is wrong was found when the file was opened.
func unseal(sealed []byte) []byte {
	if len(sealed) < sealSize {
		return nil
	}
	return sealed[:len(sealed)-sealSize]
}

func sealOf(sealed []byte) uint64 {
	if len(sealed) < sealSize {
		return 0
	}
	return uint64(binary.BigEndian.Uint32(sealed[len(sealed)-sealSize:]))
}

// change stores a value, or deletes it when it is nil, if that makes a difference. A bucket's sequence number is the sum of its
// values' checksums, so that none can be missing.
func change(b *bbolt.Bucket, key, value []byte) (different bool, err error) {
	old := b.Get(key)
	if value == nil && old == nil || value != nil && old != nil && bytes.Equal(unseal(old), value) {
		return false, nil
	}
	sum := b.Sequence() - sealOf(old)
	if value == nil {
		err = b.Delete(key)
	} else {
		sealed := seal(key, value)
		sum += sealOf(sealed)
		err = b.Put(key, sealed)
	}
	if err != nil {
		return true, err
	}
	return true, b.SetSequence(sum)
}

// verify reads a bucket.
func verify(b *bbolt.Bucket) error {
	if b == nil {
		return errors.New("it is missing")
	}
	var sum uint64
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if len(v) < sealSize || sealOf(v) != uint64(checksum(k, unseal(v))) || !bytes.Equal(b.Get(k), v) {
			return fmt.Errorf("the checksum of %q is wrong", k)
		}
		sum += sealOf(v)
	}
	if sum != b.Sequence() {
		return errors.New("something is missing")
	}
	return nil
}
