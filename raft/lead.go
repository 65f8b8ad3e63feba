package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

// leadBackoff is the pause before work as a leader starts again when nobody else could take over.
const leadBackoff = time.Second

// Lead is work that only the leader does. Its context ends with the leadership, or when a snapshot was restored: then it runs
// anew. The epoch grows each time: it is the term, and more once a snapshot was restored or the cluster recovered.
type Lead func(ctx context.Context, epoch uint64) error

// Run acts on leadership until ctx ends, then hands it over and stops the node. While this server leads, lead runs, from the
// moment that everything earlier leaders committed is in the store. When it returns early, another server becomes leader.
func (n *Node) Run(ctx context.Context, lead Lead) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.writeCheckpoints(groupCtx) })
	group.Go(func() error { return n.watchLeader(groupCtx) })
	if !n.cfg.Witness {
		group.Go(func() error { return n.suspectLeader(groupCtx) })
	}
	group.Go(func() error { return n.reserve.keep(groupCtx) })
	group.Go(func() error { return n.serveProbation(groupCtx) })
	group.Go(func() error { return n.announcer.run(groupCtx) })
	group.Go(func() error { return n.followLeadership(groupCtx, lead) })
	group.Go(func() error {
		select {
		case <-n.fsm.failed:
			return n.fsm.failure
		case <-n.identity.ended:
			return ErrSuperseded // why is logged
		case <-n.alarm.raised:
			return n.alarm.err
		case <-groupCtx.Done():
			return nil
		}
	})
	err := group.Wait()
	n.handOver()
	return errors.Join(err, n.Close())
}

// followLeadership starts and stops lead. The library's channel may join a loss and a new gain into one message, so that
// every message first ends what runs.
func (n *Node) followLeadership(ctx context.Context, lead Lead) error {
	var running leadership
	defer running.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.fsm.restored:
			// The state is another one: the work of the leader begins anew, in an epoch of its own.
			if running.cancel != nil && n.IsLeader() {
				running.stop()
				running.start(ctx, func(ctx context.Context) { n.leadUntilLost(ctx, lead) })
			}
		case leading := <-n.raft.LeaderCh():
			running.stop()
			n.ready.clear()
			n.wake()
			if err := n.retime(); err != nil {
				return err
			}
			if leading {
				running.start(ctx, func(ctx context.Context) { n.leadUntilLost(ctx, lead) })
			} else {
				n.logger.Info("this server no longer leads")
			}
		}
	}
}

// leadership is the work that goes on while this server leads.
type leadership struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (l *leadership) start(ctx context.Context, work func(context.Context)) {
	ctx, l.cancel = context.WithCancel(ctx)
	l.done.Go(func() { work(ctx) })
}

// stop returns when the work has ended: there are never two at a time.
func (l *leadership) stop() {
	if l.cancel != nil {
		l.cancel()
		l.done.Wait()
		l.cancel = nil
	}
}

// leadUntilLost runs lead; when that fails, another server gets the leadership, or, if there is none, lead starts again.
func (n *Node) leadUntilLost(ctx context.Context, lead Lead) {
	for ctx.Err() == nil {
		err := n.leadOnce(ctx, lead)
		if ctx.Err() != nil {
			return
		}
		n.logger.Error("the work of the leader ended early, stepping down", "error", err)
		if err := n.transferLeadership(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(leadBackoff):
		}
	}
}

func (n *Node) leadOnce(ctx context.Context, lead Lead) error {
	term := n.raft.CurrentTerm()
	if err := wait(ctx, n.raft.Barrier(0)); err != nil {
		return fmt.Errorf("wait for the earlier terms: %w", err)
	}
	if n.raft.CurrentTerm() != term {
		return errors.New("the term is over")
	}
	n.ready.set(term)
	epoch := term + n.fsm.epochs.Load()
	n.logger.Info("this server leads", "term", term, "epoch", epoch, "revision", n.store.Revision())
	ctx, cancel := context.WithCancel(ctx)
	var tending sync.WaitGroup
	tending.Go(func() { n.tending.run(ctx) })
	defer tending.Wait()
	defer cancel()
	if err := lead(ctx, epoch); err != nil {
		return err
	}
	return errors.New("it returned without being asked to")
}

// StepAside lets another server lead, as before this server's device restarts. It fails when there is none that can.
func (n *Node) StepAside(ctx context.Context) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	return n.transferLeadership(ctx)
}

// transferLeadership makes another server the leader: the library would choose one that is dead, or a witness, as readily as
// any other.
func (n *Node) transferLeadership(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := errors.New("there is no other server that could lead")
	for _, s := range n.successors() {
		if err = wait(ctx, n.raft.LeadershipTransferToServer(hraft.ServerID(s.ID), s.listed())); err == nil {
			return nil
		}
	}
	return err
}

// successors are the other servers that could lead, those first that were well when they were last looked at.
func (n *Node) successors() []Server {
	out := slices.DeleteFunc(n.Servers(), func(s Server) bool { return s.ID == n.cfg.ID || !s.Voter || s.Witness })
	slices.SortStableFunc(out, func(a, b Server) int {
		switch well, other := n.tending.isWell(a.ID), n.tending.isWell(b.ID); {
		case well == other:
			return 0
		case well:
			return -1
		}
		return 1
	})
	return out
}

// handOver gives the leadership to another server before a stop, if there is one that can take it.
func (n *Node) handOver() {
	if !n.IsLeader() || len(n.successors()) == 0 {
		return
	}
	if err := n.transferLeadership(context.Background()); err != nil {
		n.logger.Warn("the leadership could not be handed over", "error", err)
		return
	}
	n.awaitSuccessor()
}

// awaitSuccessor stays for the election: it may need this server's vote.
func (n *Node) awaitSuccessor() {
	late := time.After(n.cfg.ElectionTimeout)
	for {
		if _, _, known := n.Leader(); known {
			return
		}
		select {
		case <-n.observed: // Run's other parts have ended
		case <-late:
			return
		}
	}
}

// watchLeader wakes whoever waits for a change of leader. With a leader, the node is calm.
func (n *Node) watchLeader(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-n.observed:
			if missed, ok := o.Data.(hraft.FailedHeartbeatObservation); ok {
				n.tending.missed(string(missed.PeerID))
				continue
			}
			n.wake()
			if _, _, known := n.Leader(); !known {
				continue
			}
			if err := n.retime(); err != nil {
				return err
			}
		}
	}
}

// writeCheckpoints writes a checkpoint whenever one is due.
func (n *Node) writeCheckpoints(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.fsm.due:
			if err := n.checkpointWhenDue(ctx); err != nil && ctx.Err() == nil {
				n.logger.Warn("no checkpoint was written; it is tried again soon", "error", err)
				sleep(ctx, checkpointRetry)
				n.fsm.demand() // there may be no more writes until there is one
			}
		}
	}
}

// checkpointWhenDue writes a checkpoint. The log then keeps the newest entries for followers that are a bit behind: a number of them,
// but no more than is in reserve on the disk. After a restore it keeps nothing: who is behind is quicker with the checkpoint.
func (n *Node) checkpointWhenDue(ctx context.Context) error {
	if !n.fsm.swapped.Load() {
		if err := n.keepTrailing(n.log.newest(n.reserve.size, n.cfg.TrailingLogs)); err != nil {
			return err
		}
		return wait(ctx, n.raft.Snapshot())
	}
	if err := n.keepTrailing(0); err != nil {
		return err
	}
	err := wait(ctx, n.raft.Snapshot())
	if err == nil {
		n.fsm.swapped.Store(false)
	}
	return errors.Join(err, n.keepTrailing(n.cfg.TrailingLogs))
}

// keepTrailing sets how many entries the next checkpoint leaves in the log.
func (n *Node) keepTrailing(entries uint64) error {
	if n.trailing.Swap(entries) == entries {
		return nil
	}
	return n.retime()
}

// future is a library's promise.
type future interface{ Error() error }

// wait waits for a future, but no longer than the context. The library resolves every future that it has accepted when
// leadership or the node ends, so the goroutine ends too.
func wait(ctx context.Context, f future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readiness says whether the present leadership has passed its barrier, and in which term.
type readiness struct {
	passed atomic.Uint64 // the term, or 0

	mu   sync.Mutex
	wait chan struct{}
}

func (r *readiness) term() uint64 { return r.passed.Load() }

func (r *readiness) set(term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed.Store(term)
	if r.wait != nil {
		close(r.wait)
		r.wait = nil
	}
}

func (r *readiness) clear() { r.passed.Store(0) }

// waiting returns nil when ready, or what will be closed then.
func (r *readiness) waiting() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.passed.Load() != 0 {
		return nil
	}
	if r.wait == nil {
		r.wait = make(chan struct{})
	}
	return r.wait
}
