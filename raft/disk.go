package raft

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/raft/failpoint"
)

const (
	lockFile       = "lock"
	logFile        = "log"
	checkpointFile = "checkpoint.db"
)

// openTimeout bounds the wait for a database file that somebody else has open.
const openTimeout = time.Second

// castagnoli has instructions of its own on amd64 and arm64.
func checksum(parts ...[]byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // computed once inside the standard library
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, table, p)
	}
	return sum
}

// DamagedError says that a file of the data folder cannot be trusted.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged: %v", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// lockDir makes this process the only user of a data folder until the file is closed.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data folder %s is in use by another shoal process: stop that one or choose another folder", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// boltOptions leave the list of free pages out of the file: it has no checksum, so it is better found anew at each opening
// than believed, and every transaction writes a page less.
func boltOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: openTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoStatistics: true}
}

// inspect reads a database before anything else opens it. bbolt looks for free pages in a goroutine of its own when it opens
// a file for writing, and damage found there ends the process; so f must visit every key and value.
func inspect(path string, f func(*bbolt.Tx) error) error {
	return guard(path, func() error {
		if size, err := readThrough(path); err != nil {
			return err
		} else if size == 0 {
			return &DamagedError{path, errors.New("it is empty")}
		}
		opts := boltOptions()
		opts.ReadOnly = true
		db, err := bbolt.Open(path, 0o600, opts)
		if err != nil {
			return err
		}
		return errors.Join(guard(path, func() error { return db.View(f) }), db.Close())
	})
}

// readThrough reads a file from its beginning to its end. It is faster than the page by page of a mapped file, and tells a disk that
// cannot be read from a file that is damaged: in a mapped file both are faults.
func readThrough(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(io.Discard, f)
	return size, errors.Join(err, f.Close())
}

// walk calls f for all of a bucket and makes sure that what is there is also found by its key.
func walk(path string, bucket *bbolt.Bucket, f func(k, v []byte) error) error {
	if bucket == nil {
		return &DamagedError{path, errors.New("a bucket is missing")}
	}
	cursor := bucket.Cursor()
	for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
		if found := bucket.Get(k); !bytes.Equal(found, v) {
			return &DamagedError{path, fmt.Errorf("%q is not where it belongs", k)}
		}
		if err := f(k, v); err != nil {
			return &DamagedError{path, err}
		}
	}
	return nil
}

// openBolt opens a database that must be sound. bbolt reports much damage by a panic or a fault in the mapped file, and
// guard turns both into errors.
func openBolt(path string, opts *bbolt.Options) (db *bbolt.DB, err error) {
	err = guard(path, func() error {
		db, err = bbolt.Open(path, 0o600, opts)
		return err
	})
	return db, err
}

// guard runs f and makes what it finds wrong with a database file a *DamagedError, unless the disk cannot be read.
func guard(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if _, err = readThrough(path); err == nil {
				err = &DamagedError{Path: path, Err: fmt.Errorf("%v", p)}
			}
		}
	}()
	err = f()
	var damaged *DamagedError
	var system *fs.PathError
	switch {
	case err == nil, errors.As(err, &damaged), errors.As(err, &system):
		return err
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s is in use by another process: stop that one or choose another data folder", path)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum),
		strings.Contains(err.Error(), "file size too small"):
		return &DamagedError{Path: path, Err: err}
	}
	return err
}

// replaceFile puts a finished file in its place for good.
func replaceFile(temp, path string) error {
	f, err := os.Open(temp)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err == nil {
		failpoint.Hit("file.rename.before")
		err = os.Rename(temp, path)
		failpoint.Hit("file.rename.after")
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
