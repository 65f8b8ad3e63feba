package raft

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/store"
)

// retryPause is the time between two tries to write to a disk that has refused.
const retryPause = time.Second

// logDisk is the log's database on a disk that may refuse.
//
// A full disk leaves a transaction undone, and the next one may succeed. After any other failure nobody knows what is on the
// disk: the kernel may show pages that never got there, and to go on with those would put the whole file at risk. So nothing is
// written before the file was read anew, from the disk, as after a restart. Reads go on with what is there.
type logDisk struct {
	path    string
	logger  *slog.Logger
	alarm   *alarm   // may be nil
	reserve *reserve // may be nil
	roots   error    // what was wrong with the root pages when the file was opened first, or nil

	writing  sync.Mutex // one writer; guards the rest but db
	distrust error      // why the file must be read anew before the next write, or nil
	tried    time.Time  // when that was last tried
	last     uint64     // the newest entry that the library knows to be stored
	told     bool       // that the disk refuses

	mu sync.RWMutex // held for writing while the file is closed and opened
	db *bbolt.DB    // nil when it could not be opened anew

	opened  time.Time
	plenty  atomic.Int64  // until when there is plenty of room, by the monotonic clock since opened
	serving atomic.Bool   // the library runs: it must not hear that a vote was refused
	left    chan struct{} // closed when the node ends
	leaving sync.Once
}

func openLogDisk(path string) (*logDisk, error) {
	f := &logDisk{path: path, logger: slog.New(slog.DiscardHandler), left: make(chan struct{}), opened: time.Now()}
	if err := f.open(); err != nil {
		return nil, err
	}
	var err error
	if f.roots, err = checkRoots(path); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// open reads what is on the disk, not what an earlier process left in memory, and trusts it if it is sound.
func (f *logDisk) open() error {
	if err := forgetCached(f.path); err != nil {
		return err
	}
	if err := inspect(f.path, verifyLog); err != nil {
		return err
	}
	opts := boltOptions()
	opts.NoSync = forgetful
	db, err := openBolt(f.path, opts)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.db = db
	return nil
}

// forgetCached makes the kernel read a file from the disk the next time.
func forgetCached(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close()); err != nil {
		return fmt.Errorf("read %s anew: %w", path, err)
	}
	return nil
}

func (f *logDisk) close() error {
	f.leave()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.db == nil {
		return nil
	}
	return f.db.Close()
}

// leave ends waits for the disk: the node ends.
func (f *logDisk) leave() { f.leaving.Do(func() { close(f.left) }) }

// view reads.
func (f *logDisk) view(do func(*bbolt.Tx) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.db == nil {
		return f.distrust // set before db became nil, and only changed together with it
	}
	return f.alarm.heed(guard(f.path, func() error { return f.db.View(do) }))
}

// update writes. Then says, once it is on the disk, which entry is the last.
func (f *logDisk) update(do func(*bbolt.Tx) error, then func(last *uint64)) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.distrust != nil {
		if err := f.reopen(); err != nil {
			return err
		}
	}
	err := f.write(do)
	switch {
	case err == nil:
		then(&f.last)
		if f.told {
			f.told = false
			f.logger.Info("the disk takes writes again", "file", f.path)
		}
		return nil
	case isFull(err):
		err = fmt.Errorf("%w: %w", store.ErrFull, err)
	default:
		f.distrust = f.alarm.heed(err)
	}
	if !f.told {
		f.told = true
		f.logger.Error("the disk refuses the log", "file", f.path, "error", err)
	}
	return err
}

func (f *logDisk) write(do func(*bbolt.Tx) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return guard(f.path, func() error { return f.db.Update(do) })
}

// isFull says whether a transaction ended because there was no room for its pages. The pages that it changes last and that make
// it count have their room always.
func isFull(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// reopen makes the file one that can be written again, if the disk lets it. The writer holds writing.
func (f *logDisk) reopen() error {
	if time.Since(f.tried) < retryPause {
		return f.distrust
	}
	f.tried = time.Now()
	if err := tryDisk(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("%w; and now: %w", f.distrust, err) // reads go on with the file as it is
	}
	if err := f.closeAgain(); err != nil {
		return err
	}
	if err := f.open(); err != nil {
		return f.stillBad(err)
	}
	if err := f.write(f.forgetUnknown); err != nil {
		return f.stillBad(err)
	}
	f.distrust = nil
	return nil
}

func (f *logDisk) closeAgain() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.db == nil {
		return nil
	}
	err := f.db.Close()
	f.db = nil
	return err
}

func (f *logDisk) stillBad(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.distrust = f.alarm.heed(err)
	return err
}

// forgetUnknown removes entries whose storing failed, but which got to the disk all the same: the library will give others their
// numbers. Entries that it knows to be stored must be there.
func (f *logDisk) forgetUnknown(tx *bbolt.Tx) error {
	log := tx.Bucket(bucketLog())
	last := log.Sequence()
	if last < f.last {
		return &DamagedError{f.path, fmt.Errorf("it ends with entry %d, but %d was stored", last, f.last)}
	}
	for index := f.last + 1; index <= last; index++ {
		k := logKey(index)
		if err := log.Delete(k[:]); err != nil {
			return err
		}
	}
	return log.SetSequence(f.last)
}

// tryDisk finds out whether a disk takes writes.
func tryDisk(dir string) (err error) {
	f, err := os.CreateTemp(dir, "try-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, os.Getpagesize()))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
}

// insist writes until the disk takes it, once the library runs: what it must not forget, it stops the whole process for when it is
// refused. Until then this server takes no part in the consensus, which is what a server without a disk should do. If the node
// ends first, so does the calling goroutine.
func (f *logDisk) insist(write func() error) error {
	for {
		err := write()
		if err == nil || !f.serving.Load() {
			return err
		}
		select {
		case <-f.left:
			runtime.Goexit()
		case <-time.After(retryPause):
		}
	}
}

const (
	// leastRoom is left on the disk for what is more important than a write: votes, checkpoints, what the device's agent keeps.
	// On small disks it is a sixteenth.
	leastRoom = 4 << 20
	// recordPages bounds how many times its size a record takes on its way through the database.
	recordPages = 4
	// With plenty of room the disk is asked again only after a while: it does not fill that soon.
	plenty      = 256 << 20
	plentyLasts = 100 * time.Millisecond
)

// room says whether a record of a size surely finds room. To refuse early keeps a leader whose disk is full in its place: what is
// there can still be read.
func (f *logDisk) room(size int) error {
	now := time.Since(f.opened) // whatever the clock on the wall does
	if now < time.Duration(f.plenty.Load()) {
		return nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(f.path, &s); err != nil {
		return nil // the write itself will tell
	}
	free, least := s.Bavail*uint64(s.Bsize), min(leastRoom, s.Blocks*uint64(s.Bsize)/16)
	if free > plenty {
		f.plenty.Store(int64(now + plentyLasts))
	}
	if free < least+uint64(size)*recordPages {
		return fmt.Errorf("%w: %d KiB are left on the disk of %s, %d KiB of that are kept in reserve", store.ErrFull, free>>10, f.path, least>>10)
	}
	return nil
}
