package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Server is one member of the consensus.
type Server struct {
	ID      string
	Address string // empty while nobody knows it
	Voter   bool
	Witness bool // it votes and keeps no objects
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

// Addresses are where other servers may be found: where they said last that they are, and where the list of members has them.
func (n *Node) Addresses() []string {
	var out []string
	for _, s := range n.Servers() {
		if s.Witness {
			continue
		}
		for _, address := range []string{n.hints.get(s.ID), s.Address} {
			if address != "" && !slices.Contains(out, address) {
				out = append(out, address)
			}
		}
	}
	return out
}

// Servers lists the members, in the order in which they joined.
func (n *Node) Servers() []Server {
	servers, _ := n.membership()
	return servers
}

// membership returns the members and the log entry that has the list. A change that names this entry is refused if the list
// has become another one meanwhile. The entry is 0 while a change is under way.
func (n *Node) membership() ([]Server, uint64) {
	agreed := n.fsm.agreed.Load() // before the list in force: this one is never older
	future := n.raft.GetConfiguration()
	if future.Error() != nil {
		return nil, 0
	}
	inForce := future.Configuration().Servers
	leader, _, _ := n.Leader()
	var out []Server
	for _, listed := range inForce {
		s := memberOf(listed)
		s.Leader = s.ID == leader
		out = append(out, s)
	}
	if !slices.Equal(inForce, agreed.Servers) {
		return out, 0
	}
	return out, agreed.index
}

func find(servers []Server, id string) (Server, bool) {
	i := slices.IndexFunc(servers, func(s Server) bool { return s.ID == id })
	if i < 0 {
		return Server{}, false
	}
	return servers[i], true
}

func (n *Node) isVoter(id string) bool {
	s, _ := find(n.Servers(), id)
	return s.Voter
}

// Announce takes note of where a server is, after it has answered there. One that is new becomes a member without a vote. Only the
// leader can. What is so already is not written.
func (n *Node) Announce(ctx context.Context, id, address string, witness bool) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	me := Server{ID: id, Address: address, Witness: witness}
	servers := n.Servers()
	if s, ok := find(servers, id); ok && s.Address == address && s.Witness == witness {
		return nil
	}
	if id != n.cfg.ID {
		if err := n.visit(ctx, id, address); err != nil {
			return fmt.Errorf("%s cannot be reached where it says that it is: %w; check advertiseAddress and the network", id, err)
		}
	}
	for _, s := range servers {
		switch {
		case s.ID == id && s.Voter && s.Witness != witness:
			return fmt.Errorf("%s has a vote as another kind of server", id)
		case s.ID != id && s.Address == address:
			// The one that was there has moved and will tell where to, or is gone. It keeps its vote: whoever takes votes away must
			// look at the quorum.
			s.Address = ""
			if err := n.list(ctx, "forget the address of", &s); err != nil {
				return err
			}
		}
	}
	n.hints.drop(id)
	return n.list(ctx, "join", &me)
}

// visitTimeout bounds the look whether a server is where it says.
const visitTimeout = 3 * time.Second

func (n *Node) visit(ctx context.Context, id, address string) error {
	ctx, cancel := context.WithTimeout(ctx, visitTimeout)
	defer cancel()
	conn, err := streamLayer{n.cfg.Layer, n.cfg.Address, n}.meet(ctx, id, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Distrust makes sure that a server that remembers nothing has no vote, now or by what an earlier leader may yet find in its log:
// it may have helped to commit an entry that it no longer has, and have voted without knowing for whom. It gets its vote back when
// it has everything again.
func (n *Node) Distrust(ctx context.Context, id string) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	servers, index := n.membership()
	if index == 0 { // what is under way may still be lost, whatever it says
		if err := n.await(ctx, "distrust", id, n.raft.Barrier(0)); err != nil {
			return err
		}
		if servers, index = n.membership(); index == 0 {
			return errChanging
		}
	}
	if s, _ := find(servers, id); s.Voter {
		return n.takeVote(ctx, id, index)
	}
	return nil
}

// errChanging says that a change of the members is not agreed to yet, and may be lost.
var errChanging = errors.New("a change of the members is under way: try again")

// list writes a member's address into the list. A server that is new there has no vote; one that is not keeps what it has.
func (n *Node) list(ctx context.Context, verb string, s *Server) error {
	limit, err := timeLeft(ctx)
	if err != nil {
		return err
	}
	return n.await(ctx, verb, s.ID, n.raft.AddNonvoter(hraft.ServerID(s.ID), s.listed(), 0, limit))
}

// giveVote gives a member a vote, if the list is still that of an entry.
func (n *Node) giveVote(ctx context.Context, s *Server, index uint64) error {
	limit, err := timeLeft(ctx)
	if err != nil {
		return err
	}
	if index == 0 {
		return errChanging
	}
	return n.await(ctx, "give a vote to", s.ID, n.raft.AddVoter(hraft.ServerID(s.ID), s.listed(), index, limit))
}

func (n *Node) takeVote(ctx context.Context, id string, index uint64) error {
	return n.without(ctx, "take the vote of", id, index, n.raft.DemoteVoter)
}

// Remove takes a server out of the membership. Only the leader can.
func (n *Node) Remove(ctx context.Context, id string) error {
	if !n.IsLeader() {
		return n.notLeader()
	}
	_, index := n.membership()
	return n.remove(ctx, id, index)
}

func (n *Node) remove(ctx context.Context, id string, index uint64) error {
	return n.without(ctx, "remove", id, index, n.raft.RemoveServer)
}

// without makes a change after which a server has no vote, if the list is still that of an entry. It leaves no membership that
// nobody could lead.
func (n *Node) without(ctx context.Context, verb, id string, index uint64,
	do func(hraft.ServerID, uint64, time.Duration) hraft.IndexFuture,
) error {
	limit, err := timeLeft(ctx)
	if err != nil {
		return err
	}
	if index == 0 {
		return errChanging
	}
	if !slices.ContainsFunc(n.Servers(), func(s Server) bool { return s.ID != id && s.Voter && !s.Witness }) {
		return fmt.Errorf("%s %s: no other server with a vote keeps the objects", verb, id)
	}
	return n.await(ctx, verb, id, do(hraft.ServerID(id), index, limit))
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
