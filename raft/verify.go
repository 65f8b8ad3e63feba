package raft

import (
	"context"
	"fmt"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// verifier asks a quorum of the voters whether this server still leads in a term. Only an answer to a question that was sent
// after the caller's own counts. The library's own check (VerifyLeader) also counts answers that were on their way already, and
// those of non-voters: a leader that was stopped for a while finds such answers when it goes on, believes that it still leads, and
// reads what is old.
//
// There is at most one question on its way to each server; who comes meanwhile shares the next.
type verifier struct {
	// ask sends one question and reports whether the server follows this one in the term.
	ask func(to Server, term uint64) bool

	mu    sync.Mutex
	peers map[string]*peerCheck
}

// peerCheck is what goes on between this server and another one.
type peerCheck struct {
	asking bool
	next   *answer // for who came while a question was on its way
}

// answer is the one that all who share a question wait for.
type answer struct {
	term uint64
	done chan struct{}
	yes  bool
}

func newVerifier(ask func(to Server, term uint64) bool) *verifier {
	return &verifier{ask: ask, peers: map[string]*peerCheck{}}
}

// question returns the answer to a question that is not sent yet.
func (v *verifier) question(to Server, term uint64) *answer {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.peers[to.ID]
	if p == nil {
		p = &peerCheck{}
		v.peers[to.ID] = p
	}
	if p.next != nil && p.next.term == term {
		return p.next
	}
	a := &answer{term: term, done: make(chan struct{})}
	if p.next != nil {
		close(p.next.done) // of another term: nobody may count it any more
	}
	p.next = a
	if !p.asking {
		p.asking = true
		go v.run(to, p) // ends when nobody waits; each question ends by the transport's timeout
	}
	return a
}

func (v *verifier) run(to Server, p *peerCheck) {
	for {
		v.mu.Lock()
		a := p.next
		p.next, p.asking = nil, a != nil
		v.mu.Unlock()
		if a == nil {
			return
		}
		a.yes = v.ask(to, a.term)
		close(a.done)
	}
}

// verify returns nil if a majority of the voters, this server among them if it has a vote, says yes.
func (v *verifier) verify(ctx context.Context, self string, servers []Server, term uint64) error {
	voters, yes := 0, 0
	var answers []*answer
	for _, s := range servers {
		switch {
		case !s.Voter:
		case s.ID == self:
			voters++
			yes++
		default:
			voters++
			answers = append(answers, v.question(s, term))
		}
	}
	need := voters/2 + 1
	got := make(chan bool, len(answers))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, a := range answers {
		go func() { // ends with the answer or with verify
			select {
			case <-a.done:
				got <- a.yes
			case <-ctx.Done():
			}
		}()
	}
	for left := len(answers); yes < need; left-- {
		if yes+left < need {
			return fmt.Errorf("%d of %d voters confirm that this server leads", yes, voters)
		}
		select {
		case ok := <-got:
			if ok {
				yes++
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of %d voters confirm that this server leads: %w", yes, voters, ctx.Err())
		}
	}
	return nil
}

// follows asks a server with an empty message of the leader, as the library's heartbeats are.
func (n *Node) follows(to Server, term uint64) bool {
	self := n.transport.EncodePeer(hraft.ServerID(n.cfg.ID), hraft.ServerAddress(n.cfg.Address))
	request := hraft.AppendEntriesRequest{
		RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(n.cfg.ID), Addr: self},
		Term:      term,
	}
	var response hraft.AppendEntriesResponse
	err := n.transport.AppendEntries(hraft.ServerID(to.ID), hraft.ServerAddress(to.Address), &request, &response)
	return err == nil && response.Success && response.Term == term
}

// verifyLeader returns nil if this server leads in the term, after the call as before.
func (n *Node) verifyLeader(term uint64) error {
	if term == 0 || n.raft.CurrentTerm() != term || !n.IsLeader() {
		return n.notLeader()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*n.leaseTimeout()+verifyExtra)
	defer cancel()
	if err := n.verifier.verify(ctx, n.cfg.ID, n.Servers(), term); err != nil {
		return fmt.Errorf("%w (%w)", n.notLeader(), err)
	}
	return nil
}

// verifyExtra is for links that are slower than the election timeout.
const verifyExtra = time.Second
