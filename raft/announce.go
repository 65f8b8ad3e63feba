package raft

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// quiet is how long a leader waits for a next write before it announces the last one. Under load the entries that follow
// carry the news by themselves.
const quiet = 3 * time.Millisecond

// announcer tells followers that an entry is committed. The library would tell them with the next entry, or else after its
// commit timeout; a short one costs messages all day, a long one makes a lone write seen late on followers.
//
// An announcement is the message that the library sends after its commit timeout: an AppendEntries without entries, that
// follows a committed entry and makes known that it is committed. It is true whenever it arrives, and a follower in a later
// term or without that entry refuses it.
type announcer struct {
	node *Node
	// newest is the last entry that was applied while this server leads, and the term of its leadership.
	newest  atomic.Pointer[announcement]
	pending chan struct{}

	mu   sync.Mutex
	busy map[string]bool // by server: one message at a time
}

type announcement struct{ index, entryTerm, term uint64 }

func newAnnouncer(n *Node) *announcer {
	return &announcer{node: n, pending: make(chan struct{}, 1), busy: map[string]bool{}}
}

// applied notes an entry. It is called for every one, so it does next to nothing away from the leader.
func (a *announcer) applied(entry *hraft.Log) {
	term := a.node.ready.term()
	if term == 0 {
		return
	}
	a.newest.Store(&announcement{index: entry.Index, entryTerm: entry.Term, term: term})
	a.wake()
}

func (a *announcer) run(ctx context.Context) error {
	var sends sync.WaitGroup
	defer sends.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.pending:
		}
		newest := a.newest.Load()
		for {
			if sleep(ctx, quiet); ctx.Err() != nil {
				return nil
			}
			latest := a.newest.Load()
			if latest == newest {
				break
			}
			newest = latest
		}
		for _, s := range a.node.Servers() {
			if s.ID != a.node.cfg.ID && a.take(s.ID) {
				sends.Go(func() {
					a.send(s, newest)
					a.give(s.ID, newest)
				})
			}
		}
	}
}

// send is an attempt: who does not hear it learns of the entry a little later.
func (a *announcer) send(to Server, what *announcement) {
	t := a.node.transport
	self := t.EncodePeer(hraft.ServerID(a.node.cfg.ID), hraft.ServerAddress(a.node.cfg.Address))
	request := hraft.AppendEntriesRequest{
		RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(a.node.cfg.ID), Addr: self},
		Term:      what.term, PrevLogEntry: what.index, PrevLogTerm: what.entryTerm, LeaderCommitIndex: what.index,
	}
	_ = t.AppendEntries(hraft.ServerID(to.ID), hraft.ServerAddress(to.Address), &request, &hraft.AppendEntriesResponse{})
}

func (a *announcer) take(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy[id] {
		return false
	}
	a.busy[id] = true
	return true
}

// give ends a server's turn. What came while it was told something older is announced anew.
func (a *announcer) give(id string, told *announcement) {
	a.mu.Lock()
	delete(a.busy, id)
	a.mu.Unlock()
	if a.newest.Load() != told {
		a.wake()
	}
}

func (a *announcer) wake() {
	select {
	case a.pending <- struct{}{}:
	default:
	}
}
