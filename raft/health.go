package raft

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Health is what the leader knows of a member.
type Health struct {
	Server
	// Well says that it answers and follows the log. The leader itself is.
	Well bool
	// Silent is for how long it has shown no sign of that, at most since this leader leads; 0 while it is well.
	Silent time.Duration
	// Behind is how many entries of today's log it lacked when it last answered; 0 also if it never did.
	Behind uint64
}

// ErrMemberRuns says that a member is not taken out because it answers.
var ErrMemberRuns = errors.New("it is alive: stop shoal there first")

// ErrNoMember says that there is no such member.
var ErrNoMember = errors.New("there is no such member")

// lookTimeout bounds how long people wait for members that do not answer.
const lookTimeout = 2 * time.Second

// Health asks every member how it is. Only the leader can.
func (n *Node) Health(ctx context.Context) ([]Health, error) {
	if !n.Ready() {
		return nil, n.notLeader()
	}
	servers := n.Servers()
	n.tending.askAll(ctx, servers, lookTimeout)
	last := n.raft.LastIndex()
	var out []Health
	for i, m := range n.tending.standings(servers) {
		h := Health{Server: servers[i], Well: m.well, Silent: m.down}
		if have, known := n.tending.entries(m.id); known && have < last {
			h.Behind = last - have
		}
		out = append(out, h)
	}
	return out, nil
}

// Dismiss takes out a member that is gone for good, if it does not answer and the others can do without its vote. Only the leader
// can.
func (n *Node) Dismiss(ctx context.Context, id string) error {
	if !n.Ready() {
		return n.notLeader()
	}
	servers, index := n.membership()
	if _, ok := find(servers, id); !ok {
		return fmt.Errorf("%w %q", ErrNoMember, id)
	}
	n.tending.askAll(ctx, servers, lookTimeout)
	standings := n.tending.standings(servers)
	for _, m := range standings {
		if m.id == id && m.well {
			return fmt.Errorf("%s: %w", id, ErrMemberRuns)
		}
	}
	if voters, well := census(standings, n.cfg.VoterGrace).after(change{action: remove, id: id}); well < quorum(voters) {
		return fmt.Errorf("without %s only %d of %d servers with a vote would be left alive: bring others back first", id, well, voters)
	}
	n.logger.Info("a server is taken out of the members", "server", id)
	return n.remove(ctx, id, index)
}
