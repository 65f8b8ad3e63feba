package raft

import (
	"errors"
	"fmt"
	"strings"

	hraft "github.com/hashicorp/raft"
)

// A witness votes and keeps no objects: its log has all entries, with their terms, but not what is in them. That is all a vote is
// decided by, so the rules of elections hold with it as with any other voter. What it must never do is to send entries to
// others, so it must never lead, and it cannot help a server that lacks entries: such a server waits for one that has them.
//
// A witness does not stand for election: the question whether it could win is answered with no before it is sent. Asking is
// still useful, as that is when the library forgets a leader that is silent and lets others win. And a leader that steps down and
// names it as its successor gets an error.

// errWitness is the answer to a leader that wants a witness to succeed it.
var errWitness = errors.New("a witness does not lead")

// witnessTransport is that of a witness. It hands over all that other servers send but the wish to be succeeded.
type witnessTransport struct{ *filter }

func newWitnessTransport(t peerTransport) witnessTransport {
	return witnessTransport{newFilter(t, func(rpc hraft.RPC) bool {
		_, succeed := rpc.Command.(*hraft.TimeoutNowRequest)
		if succeed {
			rpc.Respond(nil, errWitness)
		}
		return succeed
	})}
}

// RequestPreVote answers for the other server.
func (w witnessTransport) RequestPreVote(
	_ hraft.ServerID, _ hraft.ServerAddress, args *hraft.RequestPreVoteRequest, resp *hraft.RequestPreVoteResponse,
) error {
	resp.Term = args.Term
	return nil
}

// RequestVote answers for the other server. The library gets here only after others have encouraged it to.
func (w witnessTransport) RequestVote(
	_ hraft.ServerID, _ hraft.ServerAddress, args *hraft.RequestVoteRequest, resp *hraft.RequestVoteResponse,
) error {
	resp.Term = args.Term
	return nil
}

// witnessVotes keeps votes for others only. A witness that cannot vote for itself can win no election, whatever else goes wrong.
type witnessVotes struct {
	*logStore
	self string
}

// Set implements the library's store of votes.
func (w witnessVotes) Set(key, value []byte) error {
	if name, _, _ := strings.Cut(string(value), nameEnd); string(key) == keyVoteFor && name == w.self {
		w.voteTerm = nil
		return errWitness
	}
	return w.logStore.Set(key, value)
}

// keyWitness marks, beside the votes, the data folder of a witness. Without the mark an empty state could be taken for the
// cluster's.
const keyWitness = "witness"

// settleKind makes sure that a data folder is used as what it has been from the beginning.
func (n *Node) settleKind() error {
	marked, err := isWitness(n.log)
	if err != nil || marked == n.cfg.Witness {
		return err
	}
	if marked {
		return fmt.Errorf("the folder %s is that of a witness, which keeps no objects: move it away to make this a server", n.cfg.Dir)
	}
	if _, err := n.log.Get([]byte(keyCluster)); !errors.Is(err, errAbsent) || n.checkpoint.header().Count > 0 {
		return errors.Join(err, fmt.Errorf("the folder %s is that of a server: move it away to make this a witness", n.cfg.Dir))
	}
	return n.log.Set([]byte(keyWitness), []byte{1})
}

func isWitness(log *logStore) (bool, error) {
	_, err := log.Get([]byte(keyWitness))
	if errors.Is(err, errAbsent) {
		return false, nil
	}
	return err == nil, err
}

// witnessLog keeps that there are transactions, and not what is in them.
type witnessLog struct{ *recentLog }

// StoreLog implements the library's log.
func (w witnessLog) StoreLog(entry *hraft.Log) error { return w.StoreLogs([]*hraft.Log{entry}) }

// StoreLogs implements the library's log.
func (w witnessLog) StoreLogs(entries []*hraft.Log) error {
	empty := make([]*hraft.Log, len(entries))
	for i, entry := range entries {
		empty[i] = entry
		if entry.Type == hraft.LogCommand {
			copied := *entry
			copied.Data = nil
			empty[i] = &copied
		}
	}
	return w.recentLog.StoreLogs(empty)
}

// witnessTrailing is how many entries a witness's checkpoint leaves in the log: it sends none to anybody.
const witnessTrailing = 64
