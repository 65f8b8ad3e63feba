//go:build shoal_bench

package raft

import (
	"errors"

	hraft "github.com/hashicorp/raft"
)

// LogStore is a server's log by itself, for the benchmarks in test/logstore.
type LogStore interface {
	hraft.LogStore
	hraft.StableStore
	Close() error
}

// OpenLogStore opens the log in a folder. It is an error when something may be missing.
func OpenLogStore(dir string) (LogStore, error) {
	s, err := openLog(dir, true)
	if err != nil {
		return nil, err
	}
	if s.doubt != nil {
		return nil, errors.Join(s.doubt, s.close())
	}
	return closing{s}, nil
}

type closing struct{ *logStore }

func (c closing) Close() error {
	c.seal()
	return c.close()
}
