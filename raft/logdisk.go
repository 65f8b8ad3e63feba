package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/store"
)

// retryPause is the time between two tries to write to a disk that has refused.
const retryPause = time.Second

// logDisk is the log's folder on a disk that may refuse.
//
// A full disk leaves a change undone, and the next one may succeed. After any other failure nobody knows what is on the disk: the
// kernel may show pages that never got there, and to go on with those would put the whole log at risk. So nothing is written before
// all was read anew, from the disk, as after a restart. Reads go on with what is there.
type logDisk struct {
	path    string
	logger  *slog.Logger
	alarm   *alarm   // may be nil
	reserve *reserve // may be nil
	usual   uint32   // sectors of a segment
	doubt   error    // what is not sure about the end of the log since it was opened, or nil

	writing  sync.Mutex // one writer; guards the rest but what mu guards
	distrust error      // why the log must be read anew before the next write, or nil
	tried    time.Time  // when that was last tried
	told     bool       // that the disk refuses
	chain    []*segment // those that are needed, oldest first; the log goes on in the last one
	at       uint32     // there
	free     []*segment // those that can be used again
	next     *segment   // the one of free that the log goes on with, or nil
	noted    *segment   // what the newest batch names as next
	number   uint64     // the highest that a batch was written with
	newest   uint64     // the newest batch that is on the disk
	wasted   uint32     // bytes at the ends of segments, not counted in the cost of an entry yet
	sealed   bool       // that one is the last of an orderly stop
	unclean  bool       // there may be parts of a batch at the place where the log goes on
	bad      []block    // to be made sound again
	buffer   []byte     // for a batch
	content  []byte     // for what is in it
	create   func(dir string, id uint64, sectors uint32, first []byte) (*segment, error)
	write    func(*segment, []byte, uint32) error
	flush    func(*segment) error

	mu    sync.RWMutex // guards what follows; the writer reads it without
	index []place      // of the entries from first on
	first uint64       // 0 when there is none
	state map[string][]byte

	opened  time.Time
	plenty  atomic.Int64  // until when there is plenty of room, by the monotonic clock since opened
	serving atomic.Bool   // the library runs: it must not hear that a vote was refused
	left    chan struct{} // closed when the node ends
	leaving sync.Once
}

const (
	// While there is no segment to go on with, entries leave these sectors of the present one to votes and to the removal of entries,
	// which leave enough for the batch that names a new segment. So a disk that is full when one is needed stops entries alone.
	leaveEntries = 16 * blockSectors
	// keepFree is how many segments are kept that are free: a bit more than what is written between two checkpoints.
	keepFree = 6
)

// keyDoubt is where the log has that its end was not sure, until the server has acted on that.
const keyDoubt = "doubt"

func openLogDisk(path string) (f *logDisk, err error) {
	f = &logDisk{path: path, logger: slog.New(slog.DiscardHandler), left: make(chan struct{}), opened: time.Now()}
	f.create, f.write, f.flush = createSegment, writeSegment, flushSegment
	if f.usual, err = usualSectors(path); err != nil {
		return nil, err
	}
	scan, err := scanLog(path)
	if err != nil {
		return nil, err
	}
	if err := f.take(scan); err != nil {
		return nil, errors.Join(err, scan.close())
	}
	return f, nil
}

// take makes what was read the state of the log.
func (f *logDisk) take(scan *logScan) error {
	if len(scan.batches) == 0 {
		return &DamagedError{f.path, errors.New("it has no batch that is whole")}
	}
	chain, err := scan.chain(scan.newest())
	if err != nil {
		return err
	}
	newest := chain[len(chain)-1]
	f.countWaste(chain)
	if f.index, err = scan.index(chain); err != nil {
		return err
	}
	end, err := scan.finish(newest)
	if err != nil {
		return err
	}
	f.first, f.state, f.sealed = newest.first, newest.state, newest.sealed
	f.number, f.newest, f.at = scan.highest, newest.number, end.at
	for _, b := range chain {
		if len(f.chain) == 0 || f.chain[len(f.chain)-1] != b.segment {
			b.segment.begins = b.number
			f.chain = append(f.chain, b.segment)
		}
	}
	f.next = scan.segments[newest.next]
	f.noted = f.next
	for _, id := range newest.segments {
		if s := scan.segments[id]; !slices.Contains(f.chain, s) {
			f.free = append(f.free, s)
		}
	}
	if end.segment != newest.segment {
		f.roll()
	}
	f.bad = scan.badBlocks(chain)
	if f.unclean = end.torn || end.doubt != nil; f.unclean {
		f.sealed = false
	}
	if end.doubt != nil {
		f.state[keyDoubt] = []byte(end.doubt.Error())
	}
	if told, ok := f.state[keyDoubt]; ok {
		f.doubt = errors.New(string(told))
	}
	return scan.tidy(newest)
}

// countWaste adds what is not used at the ends of segments to the cost of the entries that come next.
func (f *logDisk) countWaste(chain []*logBatch) {
	for i, b := range chain {
		if i > 0 && chain[i-1].segment != b.segment {
			before := chain[i-1]
			f.wasted += (before.segment.sectors - before.at - before.parts) * sectorSize
		}
		if len(b.places) > 0 {
			b.places[0].cost += f.wasted
			f.wasted = 0
		}
	}
}

func (f *logDisk) close() error {
	f.leave()
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, s := range slices.Concat(f.chain, f.free) {
		errs = append(errs, s.file.Close())
	}
	f.chain, f.free, f.next = nil, nil, nil
	return errors.Join(errs...)
}

// leave ends waits for the disk: the node ends.
func (f *logDisk) leave() { f.leaving.Do(func() { close(f.left) }) }

// seal notes that nothing comes after the newest batch, unless the disk refuses: then its loss cannot be taken for a write that was
// interrupted.
func (f *logDisk) seal() {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.sealed || f.distrust != nil || len(f.chain) == 0 {
		return
	}
	_ = f.append(&logChange{sealed: true, last: f.last()})
}

func (f *logDisk) current() *segment { return f.chain[len(f.chain)-1] }

// last is the index of the newest entry, or 0.
func (f *logDisk) last() uint64 { return f.first + max(uint64(len(f.index)), 1) - 1 }

// segments are all that count.
func (f *logDisk) segments() []*segment { return slices.Concat(f.chain, f.free) }

func writeSegment(s *segment, b []byte, at uint32) error {
	_, err := s.file.WriteAt(b, int64(at)*sectorSize)
	return err
}

func flushSegment(s *segment) error {
	if forgetful {
		return nil
	}
	if err := unix.Fdatasync(int(s.file.Fd())); err != nil {
		return &fs.PathError{Op: "flush", Path: s.path(), Err: err}
	}
	return nil
}

// settleDoubt is called when the server has decided to go on as if nothing was missing; the next batch says so.
func (f *logDisk) settleDoubt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.state, keyDoubt)
}

// written is when the log was last written.
func (f *logDisk) written() (time.Time, error) {
	info, err := f.current().file.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// update writes, and says it when the disk refuses.
func (f *logDisk) update(do func() error) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if len(f.chain) == 0 {
		return fs.ErrClosed
	}
	if f.distrust != nil {
		if err := f.reread(); err != nil {
			return err
		}
	}
	err := do()
	switch {
	case err == nil:
		if f.told {
			f.told = false
			f.logger.Info("the disk takes writes again", "file", f.path)
		}
		return nil
	case errors.Is(err, errRefused):
		return err
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

// errRefused says that the log was asked for what it does not do; the disk has no part in it.
var errRefused = errors.New("the log cannot do that")

// isFull says whether a write failed because there was no room.
func isFull(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// reread makes sure, if the disk lets it, that all that is known to be stored is on it. What may have got there with a batch that failed
// is written over by the next one. The writer holds writing.
func (f *logDisk) reread() error {
	if time.Since(f.tried) < retryPause {
		return f.distrust
	}
	f.tried = time.Now()
	if err := tryDisk(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("%w; and now: %w", f.distrust, err)
	}
	scan, err := scanLog(f.path)
	if err != nil {
		f.distrust = f.alarm.heed(err)
		return err
	}
	err = f.compare(scan)
	if err = errors.Join(err, scan.close()); err != nil {
		f.distrust = f.alarm.heed(err)
		return err
	}
	f.distrust = nil
	return nil
}

func (f *logDisk) compare(scan *logScan) error {
	chain, err := scan.chain(f.newest)
	if err != nil {
		return err
	}
	index, err := scan.index(chain)
	if err != nil {
		return err
	}
	same := func(a, b place) bool {
		return a.segment.id == b.segment.id && a.batch == b.batch && a.at == b.at && a.size == b.size
	}
	newest := chain[len(chain)-1]
	state := maps.Clone(f.state)
	for _, m := range []map[string][]byte{state, newest.state} {
		delete(m, keyDoubt) // it is added and taken away without a write
	}
	if newest.first != f.first || !slices.EqualFunc(index, f.index, same) || !maps.EqualFunc(newest.state, state, bytes.Equal) {
		return &DamagedError{f.path, errors.New("it is not what was stored")}
	}
	return nil
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
	// recordPages bounds how many times its size a record takes on its way through the log and the checkpoint.
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
