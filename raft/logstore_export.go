//go:build shoal_bench

package raft

import hraft "github.com/hashicorp/raft"

// LogStore is a server's log by itself, for the benchmarks in test/logstore.
type LogStore interface {
	hraft.LogStore
	hraft.StableStore
	Close() error
}

// OpenLogStore opens the log in a folder.
func OpenLogStore(dir string) (LogStore, error) {
	s, err := openLog(dir, true)
	return closing{s}, err
}

type closing struct{ *logStore }

func (c closing) Close() error { return c.close() }
