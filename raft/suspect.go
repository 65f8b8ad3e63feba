package raft

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"
)

// suspectLeader shortens the wait for a leader whose process has died. When a connection from another server ends, it knocks at
// the leader's address: if nobody listens there, the leader does not live, and the follower waits a lease only, not the full
// time that keeps it calm on bad links. The election itself is the library's, with its rules.
func (n *Node) suspectLeader(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.ended:
		}
		// A dying process may lose its connections a moment before it stops listening.
		sleep(ctx, n.cfg.ElectionTimeout/20)
		if !n.leaderRefuses(ctx) {
			if sleep(ctx, n.cfg.ElectionTimeout/5); !n.leaderRefuses(ctx) {
				continue
			}
		}
		// Two followers that stand for election at the same instant get a vote each; a little chance sets them apart.
		pause := time.Until(n.raft.LastContact().Add(n.leaseTimeout())) + rand.N(n.cfg.ElectionTimeout/10)
		if sleep(ctx, pause); ctx.Err() != nil {
			return nil
		}
		if err := n.retime(true); err != nil {
			return err
		}
		n.awaitElection(ctx)
		if err := n.retime(false); err != nil {
			return err
		}
	}
}

// awaitElection returns when the suspicion had its effect, or has none.
func (n *Node) awaitElection(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.ElectionTimeout)
	defer cancel()
	_, suspected, _ := n.Leader()
	for {
		changes := n.LeaderChanges()
		if _, address, known := n.Leader(); known && address != suspected {
			return
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) leaderRefuses(ctx context.Context) bool {
	id, address, ok := n.Leader()
	if !ok || id == n.cfg.ID {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
	defer cancel()
	conn, err := n.cfg.Layer.Dial(ctx, address)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	_ = conn.Close()
	return false
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
