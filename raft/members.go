package raft

import (
	"context"
	"errors"
	"fmt"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Server is one member of the consensus.
type Server struct {
	ID      string
	Address string
	Voter   bool
	Leader  bool
}

// IsLeader reports whether this server leads, as far as it knows.
func (n *Node) IsLeader() bool { return !n.closed.Load() && n.raft.State() == hraft.Leader }

// Ready reports whether this server leads and has in its store all that earlier leaders committed. Before that its store may
// lack what was acknowledged, so nothing may be decided from it. A lost and regained leadership counts anew.
func (n *Node) Ready() bool {
	term := n.ready.term()
	return term != 0 && n.IsLeader() && n.raft.CurrentTerm() == term
}

// Leader is the leader as far as this server knows.
func (n *Node) Leader() (id, address string, ok bool) {
	a, i := n.raft.LeaderWithID()
	return string(i), string(a), i != ""
}

// LeaderChanges returns a channel that is closed at the next change of leader or members: ask for it, look at Leader or
// Servers, then wait.
func (n *Node) LeaderChanges() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Term is the present term.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Servers lists the members, in the order in which they joined.
func (n *Node) Servers() []Server {
	future := n.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	leader, _, _ := n.Leader()
	var out []Server
	for _, s := range future.Configuration().Servers {
		out = append(out, Server{
			ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == hraft.Voter, Leader: string(s.ID) == leader,
		})
	}
	return out
}

// Join makes a server a member, or changes its address or its vote. Only the leader can. What is so already is not written.
func (n *Node) Join(ctx context.Context, id, address string, voter bool) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	for _, s := range n.Servers() {
		switch {
		case s.ID == id && s.Address == address && s.Voter == voter:
			return nil
		case s.ID != id && s.Address == address:
			// The address answers under a new name, so the server of the old one is gone.
			if err := n.Remove(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	limit, err := timeLeft(ctx)
	if err != nil {
		return err
	}
	add := n.raft.AddNonvoter
	if voter {
		add = n.raft.AddVoter
	} else if n.isVoter(id) {
		if err := n.await(ctx, "demote", id, n.raft.DemoteVoter(hraft.ServerID(id), 0, limit)); err != nil {
			return err
		}
	}
	return n.await(ctx, "join", id, add(hraft.ServerID(id), hraft.ServerAddress(address), 0, limit))
}

// Distrust takes the vote of a server that has lost what it knew: it may have helped to commit an entry that it no longer has.
func (n *Node) Distrust(ctx context.Context, id string) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	if !n.isVoter(id) {
		return nil
	}
	limit, err := timeLeft(ctx)
	if err != nil {
		return err
	}
	return n.await(ctx, "take the vote of", id, n.raft.DemoteVoter(hraft.ServerID(id), 0, limit))
}

// Remove takes a server out of the membership. Only the leader can.
func (n *Node) Remove(ctx context.Context, id string) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	limit, err := timeLeft(ctx)
	if err != nil {
		return err
	}
	return n.await(ctx, "remove", id, n.raft.RemoveServer(hraft.ServerID(id), 0, limit))
}

func (n *Node) isVoter(id string) bool {
	for _, s := range n.Servers() {
		if s.ID == id {
			return s.Voter
		}
	}
	return false
}

func (n *Node) await(ctx context.Context, verb, id string, f future) error {
	err := wait(ctx, f)
	switch {
	case errors.Is(err, hraft.ErrNotLeader), errors.Is(err, hraft.ErrLeadershipLost):
		return fmt.Errorf("%s %s: %w", verb, id, n.notLeader())
	case err != nil:
		return fmt.Errorf("%s %s: %w", verb, id, err)
	}
	return nil
}

// timeLeft is the context's, or the longest that a proposal may take.
func timeLeft(ctx context.Context) (time.Duration, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return proposeTimeout, ctx.Err()
	}
	return max(time.Until(deadline), time.Millisecond), ctx.Err()
}
