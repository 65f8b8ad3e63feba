package raft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/store"
)

// reserve is a file that keeps room on the disk for what must not fail when everything else has filled it: a vote, a checkpoint, and
// the removal of what the checkpoint makes superfluous in the log. It is given up then, and made again when there is room.
type reserve struct {
	path   string
	logger *slog.Logger

	size int64

	mu    sync.Mutex
	held  bool
	never bool          // the file system cannot promise room
	given chan struct{} // has something in it when it was given up
}

const (
	reserveFile = "reserve"
	// reserveSize is enough for a checkpoint of as much log as there is between two. Small disks give a sixteenth.
	reserveSize = 8 << 20
	// reservePause is the time between two tries to make it again.
	reservePause = 10 * time.Second
)

func openReserve(dir string, logger *slog.Logger) (*reserve, error) {
	r := &reserve{path: filepath.Join(dir, reserveFile), logger: logger, size: reserveSize, given: make(chan struct{}, 1)}
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return nil, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	r.size = min(r.size, int64(s.Blocks)*int64(s.Bsize)/16)
	found, err := exists(r.path)
	r.held = found
	return r, err
}

// keep has the reserve made whenever there is room for it.
func (r *reserve) keep(ctx context.Context) error {
	told := ""
	for {
		if err := r.fill(); err != nil && !isFull(err) && err.Error() != told {
			told = err.Error()
			r.logger.Warn("there is no room in reserve on the disk", "file", r.path, "error", err)
		}
		r.mu.Lock()
		settled := r.held || r.never
		r.mu.Unlock()
		var again <-chan time.Time
		if !settled {
			again = time.After(reservePause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.given:
		case <-again:
		}
	}
}

// fill makes the reserve if it is not there and twice its size is free: what is left then is for the others.
func (r *reserve) fill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held || r.never {
		return nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(r.path), &s); err != nil || int64(s.Bavail)*int64(s.Bsize) < 2*r.size {
		return err
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, r.size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		r.never = true
		return errors.Join(f.Close(), os.Remove(r.path))
	}
	if err != nil {
		err = &fs.PathError{Op: "allocate", Path: r.path, Err: err}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(r.path))
	}
	r.held = true
	return syncDir(filepath.Dir(r.path))
}

// give gives the room up and reports whether there was any.
func (r *reserve) give() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		return false
	}
	// The file system gives the room out again when it has noted the removal.
	if err := errors.Join(os.Remove(r.path), syncDir(filepath.Dir(r.path))); err != nil {
		r.logger.Error("the room in reserve cannot be given up", "file", r.path, "error", err)
		return false
	}
	r.held = false
	r.logger.Warn("the disk is full: the room in reserve is in use now", "file", r.path, "bytes", r.size)
	select {
	case r.given <- struct{}{}:
	default:
	}
	return true
}

// vital writes what must not fail for want of room.
func (r *reserve) vital(write func() error) error {
	err := write()
	if err == nil || r == nil || !isFull(err) && !errors.Is(err, store.ErrFull) || !r.give() {
		return err
	}
	return write()
}
