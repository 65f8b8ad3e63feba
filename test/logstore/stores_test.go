package logstore

import (
	"testing"

	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/shoal-edge/shoal/raft"
)

// logStore is what a server needs of its log.
type logStore interface {
	hraft.LogStore
	hraft.StableStore
	Close() error
}

// store is one of the logs that are compared.
type store struct {
	name string
	open func(dir string) (logStore, error)
}

func stores() []store {
	return []store{
		{"shoal", func(dir string) (logStore, error) { return raft.OpenLogStore(dir) }},
		{"raft-wal", func(dir string) (logStore, error) { return wal.Open(dir) }},
	}
}

func (s store) mustOpen(t testing.TB, dir string) logStore {
	t.Helper()
	log, err := s.open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// entries are n entries of a size, from an index on.
func entries(from uint64, n, size int) []*hraft.Log {
	out := make([]*hraft.Log, n)
	for i := range out {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(from) + byte(i) ^ byte(j)
		}
		out[i] = &hraft.Log{Index: from + uint64(i), Term: 1, Data: data}
	}
	return out
}
