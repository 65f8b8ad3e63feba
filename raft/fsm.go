package raft

import (
	"fmt"
	"io"
	"sync/atomic"

	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/raft/failpoint"
	"github.com/shoal-edge/shoal/store"
)

// fsm applies the log to the store. It is a shim: all meaning is in the store.
type fsm struct {
	store      *store.Store
	checkpoint *checkpoint
	witness    bool // there is nothing in the entries

	// failed is closed when an entry cannot be understood: from then on nothing is applied, and the server has to stop.
	failed  chan struct{}
	failure error

	// due has something in it when so much was applied that a checkpoint is due.
	due                    chan struct{}
	entries, bytes         atomic.Int64
	maxEntries, maxBytes   int64
	configurationsReceived func()
	applied                func(*hraft.Log)
	cost                   func(index uint64) int64 // bytes of the disk that an entry takes; may be nil

	agreed   atomic.Pointer[agreement]
	last     uint64 // index of the newest entry in the state
	shift    shift
	epochs   atomic.Uint64 // the shift's, for others to read
	incoming *incomingState
	swapped  atomic.Bool   // and the log has parts of it
	restored chan struct{} // has something in it when everything was replaced by a restored snapshot
}

// Apply applies one entry. Its result is the revision or an error.
func (f *fsm) Apply(entry *hraft.Log) any {
	if f.failure != nil {
		return f.failure
	}
	if f.old(entry.Index) {
		return fmt.Errorf("entry %d is applied already", entry.Index)
	}
	if f.witness {
		f.count(entry)
		return nil
	}
	f.forgetBroken(entry.Term)
	if isPart(entry.Data) {
		return f.applyPart(entry)
	}
	txn, err := decodeTxn(entry.Data)
	if err != nil {
		return f.fail(entry, err)
	}
	revision := f.shift.revision(entry.Index)
	failpoint.Hit("fsm.apply.before")
	err = f.store.Apply(revision, txn)
	failpoint.Hit("fsm.apply.after")
	f.applied(entry)
	f.count(entry)
	if err != nil {
		return err
	}
	return revision
}

// count adds an entry to those that are not in the checkpoint yet.
func (f *fsm) count(entry *hraft.Log) {
	size := int64(len(entry.Data))
	if f.cost != nil {
		size = max(size, f.cost(entry.Index))
	}
	entries, bytes := f.entries.Add(1), f.bytes.Add(size)
	if entries >= f.maxEntries || bytes >= f.maxBytes {
		f.demand()
	}
}

// demand makes a checkpoint due.
func (f *fsm) demand() {
	select {
	case f.due <- struct{}{}:
	default:
	}
}

// fail stops the server: an entry that it does not understand must not be skipped.
func (f *fsm) fail(entry *hraft.Log, err error) error {
	f.failure = fmt.Errorf("log entry %d: %w", entry.Index, err)
	close(f.failed)
	return f.failure
}

// resume goes on from a checkpoint.
func (f *fsm) resume(head header) {
	f.agreed.Store(&agreement{head.ConfigurationIndex, head.Configuration})
	f.last, f.incoming = head.Index, nil
	f.setShift(head.Shift)
}

func (f *fsm) setShift(s shift) {
	f.shift = s
	f.epochs.Store(s.Epoch)
}

// StoreConfiguration hears of a change of members. It also lets the library count the entry as applied.
func (f *fsm) StoreConfiguration(index uint64, c hraft.Configuration) {
	f.agreed.Store(&agreement{index, c})
	f.configurationsReceived()
}

// agreement is the list of members that a quorum has agreed to, and its entry. The library has a list in force before that, and
// does not tell its entry.
type agreement struct {
	index uint64
	hraft.Configuration
}

// Snapshot takes what a checkpoint has to write.
func (f *fsm) Snapshot() (hraft.FSMSnapshot, error) {
	if f.failure != nil {
		return nil, f.failure
	}
	if f.incoming != nil {
		return nil, errRestoreUnderWay // a checkpoint has no place for half of a snapshot
	}
	s := &fsmSnapshot{fsm: f, shift: f.shift, entries: f.entries.Swap(0), bytes: f.bytes.Swap(0), changes: f.store.Changes()}
	select {
	case <-f.due: // what was due is taken
	default:
	}
	return s, nil
}

// Restore makes the store what the checkpoint has, which just came from the leader. The stream is that very file's, so
// it need not be read.
func (f *fsm) Restore(io.ReadCloser) error {
	failpoint.Hit("restore.before")
	if err := f.checkpoint.load(); err != nil {
		return err
	}
	failpoint.Hit("restore.after")
	f.resume(f.checkpoint.header())
	return nil
}

type fsmSnapshot struct {
	fsm            *fsm
	shift          shift
	entries, bytes int64
	changes        *store.Changes
	persisted      bool
}

// Persist writes the changes into the checkpoint.
func (s *fsmSnapshot) Persist(to hraft.SnapshotSink) error {
	own, ok := to.(*sink)
	if !ok {
		return fmt.Errorf("a checkpoint cannot be written into a %T", to)
	}
	own.head.Shift = s.shift
	if err := own.persist(s.changes); err != nil {
		return err
	}
	s.persisted = true
	return nil
}

// Release gives changes that were not written back to the store.
func (s *fsmSnapshot) Release() {
	if !s.persisted {
		s.changes.Undo()
		s.fsm.entries.Add(s.entries)
		s.fsm.bytes.Add(s.bytes)
	}
}
