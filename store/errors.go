package store

import "errors"

var (
	// ErrGone says that the history does not reach back to the asked revision: list again, then watch.
	ErrGone = errors.New("store: the revision is too old for the history: list again")
	// ErrSlow says that a watcher fell so far behind that the history went past it: list again, then watch.
	ErrSlow = errors.New("store: the watcher is too slow: list again")
	// ErrNotLeader says that this server may not order a transaction now; nothing was proposed, so trying elsewhere is safe.
	ErrNotLeader = errors.New("not the leader")
	// ErrUncertain says that a transaction was proposed but its fate is not known: it may commit later, or never.
	ErrUncertain = errors.New("the outcome of the write is not known")
	// ErrFull says that the disk has no room for a transaction; nothing was proposed. It goes on when there is room again.
	ErrFull = errors.New("the disk of the control plane is full")
	// ErrClosed says that a watcher was closed by its owner.
	ErrClosed = errors.New("store: the watcher is closed")
)
