package raft

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"
)

// suspectLeader spares a cluster the wait for a leader whose process has died. When a connection from another server ends, it
// knocks at the leader's address: if nobody listens there, the leader does not live, and this server stands for election at
// once instead of after the time that keeps followers calm on bad links. Nothing else about the election changes: who votes for
// whom, and that a server that lacks an entry cannot win, are the library's rules.
func (n *Node) suspectLeader(ctx context.Context) error {
	n.leadAlone(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.ended:
		}
		suspected, _, _ := n.Leader()
		// A dying process may lose its connections a moment before it stops listening.
		sleep(ctx, n.cfg.ElectionTimeout/20)
		if !n.leaderRefuses(ctx) {
			if sleep(ctx, n.cfg.ElectionTimeout/5); !n.leaderRefuses(ctx) {
				continue
			}
		}
		if sleep(ctx, n.turn(suspected)); ctx.Err() != nil {
			return nil
		}
		if id, _, known := n.Leader(); (known && id != suspected) || !n.isVoter(n.cfg.ID) {
			continue
		}
		n.stand()
		n.awaitElection(ctx)
	}
}

// leadAlone spares the only voter of a cluster the wait for others at its start. Its port may take a moment to accept.
func (n *Node) leadAlone(ctx context.Context) {
	for range 20 {
		if voters := n.voters(); len(voters) != 1 || voters[0] != n.cfg.ID || n.raft.State() != hraft.Follower {
			return
		}
		n.stand()
		sleep(ctx, n.cfg.ElectionTimeout/20)
	}
}

func (n *Node) voters() (ids []string) {
	for _, s := range n.Servers() {
		if s.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// turn is how long this server lets others stand first. Two that stand at the same instant get a vote each, so every follower
// has a turn of its own; the next one comes if the first could not win.
func (n *Node) turn(suspected string) time.Duration {
	before := 0
	for _, id := range n.voters() {
		if id != suspected && id < n.cfg.ID {
			before++
		}
	}
	return time.Duration(before)*n.cfg.ElectionTimeout/4 + rand.N(n.cfg.ElectionTimeout/20)
}

// stand makes this server a candidate now. It sends itself the message by which a leader that steps down chooses its successor.
func (n *Node) stand() {
	if n.OnProbation() {
		return
	}
	self, at := hraft.ServerID(n.cfg.ID), hraft.ServerAddress(n.cfg.Address)
	request := hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{
		ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(n.cfg.ID), Addr: n.transport.EncodePeer(self, at),
	}}
	if err := n.transport.TimeoutNow(self, at, &request, new(hraft.TimeoutNowResponse)); err != nil {
		n.logger.Debug("cannot stand for election early", "error", err)
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
