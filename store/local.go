package store

import (
	"context"
	"sync"
)

type local struct {
	mu    sync.Mutex
	store *Store
}

// NewLocal returns a proposer for a store that lives on one server only, such as the volatile one: it numbers the
// transactions itself, from the store's first revision on.
func NewLocal(s *Store) Proposer { return &local{store: s} }

func (l *local) Propose(ctx context.Context, txn Txn) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	revision := l.store.Revision() + 1
	return revision, l.store.Apply(revision, txn)
}
