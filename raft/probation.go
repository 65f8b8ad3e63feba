package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// A server whose disk has lost what it knew may have voted in terms, and helped to commit entries, that it knows nothing of any
// more. Were it to vote again, a leader could win that lacks what was acknowledged. So it is on probation:
//
//  1. For the others it is as good as dead. It answers nothing, so that no leader counts it, also none that is one no longer.
//  2. A leader takes its vote. That is committed by the others alone, so the leader is the true one, and whoever wins later has
//     all that was committed before, as after the loss of any dead server. The leader tells its term and the entry: Readmit.
//  3. The server follows that leader or a later one, but votes for nobody and does not stand, until it has applied the entry. On the
//     way it meets lists of members of long ago, some with a vote of its own, and it must not act on those.
//  4. Then it knows what any server without a vote knows, and may be given one.
//
// A log says that its server is on probation from its making on, unless it is that of the founder of a cluster. So newcomers, and
// servers whose folder somebody has moved away, go the same way.
type probation struct {
	log *logStore
	on  atomic.Bool

	mu     sync.Mutex
	passes Readmission // zero in the first two steps
	caller string      // the address of the last server that was refused
}

// Readmission is what a leader says to a server on probation.
type Readmission struct {
	Term  uint64 `json:"term"`  // of the leader; earlier ones are not to be listened to
	Index uint64 `json:"index"` // the entry to have before any vote
}

// keyProbation is where the log has the probation, beside the votes: 16 bytes, or none when it is over.
const keyProbation = "probation"

var errProbation = errors.New("this server has lost what it knew and is not readmitted yet")

func (r Readmission) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, r.Term), r.Index)
}

func decodeReadmission(b []byte) (r Readmission, err error) {
	if len(b) != 16 {
		return r, fmt.Errorf("the probation has %d bytes", len(b))
	}
	return Readmission{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, nil
}

func openProbation(log *logStore) (*probation, error) {
	p := &probation{log: log}
	b, err := log.Get([]byte(keyProbation))
	switch {
	case errors.Is(err, errAbsent):
		return p, nil
	case err != nil:
		return nil, err
	}
	if p.passes, err = decodeReadmission(b); err != nil {
		return nil, &DamagedError{log.path, err}
	}
	p.on.Store(true)
	return p, nil
}

// begin puts the server on probation.
func (p *probation) begin() error {
	if err := p.log.put(map[string][]byte{keyProbation: Readmission{}.encode(), keyDoubt: nil}); err != nil {
		return fmt.Errorf("note that this server has lost what it knew: %w", err)
	}
	p.on.Store(true)
	return nil
}

func (p *probation) readmission() Readmission {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passes
}

// readmit takes what a leader said.
func (p *probation) readmit(r Readmission) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on.Load() || r.Term < p.passes.Term {
		return nil
	}
	if err := p.log.put(map[string][]byte{keyProbation: r.encode()}); err != nil {
		return fmt.Errorf("note the readmission: %w", err)
	}
	p.passes = r
	return nil
}

// end is called when the server has what it must have.
func (p *probation) end() error {
	if err := p.log.put(map[string][]byte{keyProbation: nil}); err != nil {
		return fmt.Errorf("note the end of the probation: %w", err)
	}
	p.on.Store(false)
	return nil
}

// refuses says why a message of another server is not to be answered.
func (p *probation) refuses(message any) error {
	if !p.on.Load() {
		return nil
	}
	var term uint64
	switch m := message.(type) {
	case *hraft.AppendEntriesRequest:
		term = m.Term
	case *hraft.InstallSnapshotRequest:
		term = m.Term
	}
	if from := p.readmission().Term; from == 0 || term < from {
		return errProbation // votes have no term here
	}
	return nil
}

// heard notes where a server is that this one does not listen to: it may know who leads.
func (p *probation) heard(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caller = address
}

// Caller is the address of a server that wants something of this one, which is on probation; or empty. A server that has lost all
// addresses can ask there to be readmitted.
func (n *Node) Caller() string {
	n.probation.mu.Lock()
	defer n.probation.mu.Unlock()
	return n.probation.caller
}

// probationTransport keeps from the library what a server on probation must not answer.
type probationTransport struct {
	*filter
}

func newProbationTransport(t peerTransport, p *probation) probationTransport {
	return probationTransport{newFilter(t, func(rpc hraft.RPC) bool { return p.refused(t, rpc) })}
}

// refused answers a message that the library is not to see.
func (p *probation) refused(t peerTransport, rpc hraft.RPC) bool {
	err := p.refuses(rpc.Command)
	if err == nil {
		return false
	}
	if message, ok := rpc.Command.(hraft.WithRPCHeader); ok {
		p.heard(string(t.DecodePeer(message.GetRPCHeader().Addr)))
	}
	if rpc.Reader != nil {
		_, _ = io.Copy(io.Discard, rpc.Reader) // the next message comes behind it
	}
	rpc.Respond(nil, err)
	return true
}

// SetHeartbeatHandler implements the library's transport: heartbeats take a way of their own.
func (w probationTransport) SetHeartbeatHandler(handle func(hraft.RPC)) {
	w.filter.SetHeartbeatHandler(func(rpc hraft.RPC) {
		if !w.answered(rpc) {
			handle(rpc)
		}
	})
}

// OnProbation reports whether this server has lost what it knew, or has never known anything, and has not caught up yet.
func (n *Node) OnProbation() bool { return n.probation.on.Load() }

// Readmitted tells a server on probation what a leader has answered. It may take part again, and vote when it has caught up.
func (n *Node) Readmitted(r Readmission) error { return n.probation.readmit(r) }

// Readmit takes the vote of a server that has lost what it knew, or makes one that is new a member without a vote. Only the leader
// can, and only with a majority of the others. The server gets what is returned, and must have it before it gets a vote.
func (n *Node) Readmit(ctx context.Context, id, address string, witness bool) (Readmission, error) {
	if id == n.cfg.ID {
		return Readmission{}, fmt.Errorf("%s leads: it cannot have lost what it knew", id)
	}
	term := n.raft.CurrentTerm()
	if err := n.Distrust(ctx, id); err != nil {
		return Readmission{}, err
	}
	if err := n.Announce(ctx, id, address, witness); err != nil {
		return Readmission{}, err
	}
	barrier := n.raft.Barrier(0)
	if err := n.await(ctx, "readmit", id, barrier); err != nil {
		return Readmission{}, err
	}
	if n.raft.CurrentTerm() != term || !n.IsLeader() {
		return Readmission{}, fmt.Errorf("readmit %s: %w", id, n.notLeader())
	}
	return Readmission{Term: term, Index: n.raft.AppliedIndex()}, nil
}

// probationPause is the time between two looks at how far a server on probation is.
const probationPause = 50 * time.Millisecond

// serveProbation ends the probation when the server has caught up.
func (n *Node) serveProbation(ctx context.Context) error {
	for n.OnProbation() {
		if r := n.probation.readmission(); r.Term > 0 && n.raft.AppliedIndex() >= r.Index {
			err := n.probation.end()
			if err == nil {
				n.logger.Info("this server has caught up with the others", "index", r.Index)
				if err := n.dropAsides(); err != nil {
					n.logger.Warn("old damaged files are still there", "error", err)
				}
				n.wake()
				return n.retime()
			}
			n.logger.Warn(err.Error())
			sleep(ctx, retryPause)
		}
		if sleep(ctx, probationPause); ctx.Err() != nil {
			return nil
		}
	}
	return nil
}
