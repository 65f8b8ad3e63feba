package raft

import (
	"sync"

	hraft "github.com/hashicorp/raft"
)

// Bounds of recentLog.
const (
	recentEntries = 512
	recentBytes   = 4 << 20
)

// recentLog keeps the newest entries in memory too. The library reads each one back right after it was stored: to apply it, and on
// the leader to send it to every follower. The library's own cache bounds the number of entries but not their size, and hides why
// an entry could not be stored.
type recentLog struct {
	*logStore

	mu    sync.RWMutex
	ring  [recentEntries]hraft.Log // by index
	first uint64                   // of those that are kept
	next  uint64                   // the index after the newest; nothing is kept if it is first
	bytes int
}

func newRecentLog(s *logStore) *recentLog { return &recentLog{logStore: s} }

// GetLog reads one entry.
func (r *recentLog) GetLog(index uint64, entry *hraft.Log) error {
	r.mu.RLock()
	kept := index >= r.first && index < r.next
	if kept {
		*entry = *r.at(index)
	}
	r.mu.RUnlock()
	if kept {
		return nil
	}
	return r.logStore.GetLog(index, entry)
}

// StoreLog appends one entry.
func (r *recentLog) StoreLog(entry *hraft.Log) error { return r.StoreLogs([]*hraft.Log{entry}) }

// StoreLogs appends entries; what could not be stored is not kept.
func (r *recentLog) StoreLogs(entries []*hraft.Log) error {
	if err := r.logStore.StoreLogs(entries); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, entry := range entries {
		r.keep(entry)
	}
	return nil
}

// DeleteRange removes entries, both ends included.
func (r *recentLog) DeleteRange(first, last uint64) error {
	r.mu.Lock()
	if last >= r.first {
		r.forget()
	}
	r.mu.Unlock()
	return r.logStore.DeleteRange(first, last)
}

func (r *recentLog) at(index uint64) *hraft.Log { return &r.ring[index%recentEntries] }

// keep takes an entry, in the place of the oldest ones.
func (r *recentLog) keep(entry *hraft.Log) {
	if entry.Index != r.next {
		r.forget()
		r.first, r.next = entry.Index, entry.Index
	}
	r.bytes += len(entry.Data)
	for r.first < r.next && (r.bytes > recentBytes || r.next-r.first == recentEntries) {
		oldest := r.at(r.first)
		r.bytes -= len(oldest.Data)
		*oldest = hraft.Log{}
		r.first++
	}
	*r.at(entry.Index) = *entry
	r.next++
}

func (r *recentLog) forget() {
	clear(r.ring[:])
	r.first, r.next, r.bytes = 0, 0, 0
}
