package raft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/shoal-edge/shoal/store"
)

const (
	// proposeTimeout bounds a proposal whose context has no nearer end.
	proposeTimeout = 10 * time.Second
	// maxRecord bounds one transaction.
	maxRecord = 4 << 20
	// maxLogBytes bounds what the log holds beside the checkpoint. It only matters when that cannot be written.
	maxLogBytes = 64 << 20
)

// Propose orders a transaction: it returns when a quorum has it on disk and the store has applied it.
func (n *Node) Propose(ctx context.Context, txn store.Txn) (uint64, error) {
	record := encodeTxn(txn)
	if len(record) > maxRecord {
		return 0, fmt.Errorf("the transaction is %d bytes, more than the limit of %d", len(record), maxRecord)
	}
	if !n.Ready() { // what the caller has decided may rest on a store that is behind
		return 0, n.notLeader()
	}
	if err := n.log.room(len(record)); err != nil {
		return 0, err
	}
	if held := n.fsm.bytes.Load(); held > maxLogBytes {
		return 0, fmt.Errorf("%w: no checkpoint can be written, and the log has grown by %d MiB since the last one", store.ErrFull, held>>20)
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	apply := n.raft.Apply(record, max(time.Until(deadline), time.Millisecond))
	if err := wait(ctx, apply); err != nil {
		return 0, n.proposeError(err)
	}
	return result(apply)
}

// result is what the state machine says of an entry that is committed.
func result(apply hraft.ApplyFuture) (revision uint64, err error) {
	switch r := apply.Response().(type) {
	case uint64:
		return r, nil
	case error:
		return 0, r
	default:
		return 0, fmt.Errorf("the entry has the unknown result %v", r)
	}
}

func (n *Node) proposeError(err error) error {
	switch {
	case errors.Is(err, hraft.ErrNotLeader), errors.Is(err, hraft.ErrLeadershipTransferInProgress):
		return n.notLeader()
	case errors.Is(err, store.ErrFull): // so that nothing was stored, and nothing sent to others
		return err
	case errors.Is(err, hraft.ErrEnqueueTimeout):
		return fmt.Errorf("too many writes wait: %w", context.DeadlineExceeded)
	default: // leadership lost, shutdown, end of the context: it may be in the log or not
		return fmt.Errorf("%w: %w", store.ErrUncertain, err)
	}
}

func (n *Node) notLeader() error {
	if _, address, ok := n.Leader(); ok {
		return fmt.Errorf("%w, that is %s", store.ErrNotLeader, address)
	}
	return fmt.Errorf("%w, and none is known", store.ErrNotLeader)
}

// readBatch collects callers of ReadIndex, so that many share one question to the quorum.
type readBatch struct {
	mu      sync.Mutex
	next    *readIndex
	running bool
}

type readIndex struct {
	done     chan struct{}
	revision uint64
	err      error
}

// ReadIndex returns a revision at or after every write that was acknowledged before the call: a reader whose store has
// applied it reads what is true. It asks a quorum whether this server still leads. Callers that come while a question is
// under way share the next one.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	if !n.IsLeader() {
		return 0, n.notLeader()
	}
	if waiting := n.ready.waiting(); waiting != nil {
		if err := n.waitReady(ctx, waiting); err != nil {
			return 0, err
		}
	}
	b := &n.reads
	b.mu.Lock()
	if b.next == nil {
		b.next = &readIndex{done: make(chan struct{})}
	}
	mine := b.next
	if !b.running {
		b.running = true
		go n.answerReads() // ends when nobody waits; a question ends with the leadership at the latest
	}
	b.mu.Unlock()
	select {
	case <-mine.done:
		return mine.revision, mine.err
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the read index: %w", ctx.Err())
	}
}

func (n *Node) waitReady(ctx context.Context, ready <-chan struct{}) error {
	for {
		changes := n.LeaderChanges()
		if !n.IsLeader() {
			return n.notLeader()
		}
		select {
		case <-ready:
			return nil
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("wait for the read index: %w", ctx.Err())
		}
	}
}

func (n *Node) answerReads() {
	b := &n.reads
	for {
		b.mu.Lock()
		batch := b.next
		b.next, b.running = nil, batch != nil
		b.mu.Unlock()
		if batch == nil {
			return
		}
		// All callers of the batch came before this line, so what was acknowledged before their calls is in the store, if this
		// server has led since before and leads still, all in one term.
		term := n.ready.term()
		batch.revision = n.store.Revision()
		if err := n.verifyLeader(term); err != nil {
			batch.revision, batch.err = 0, err
		}
		close(batch.done)
	}
}
