package raft

import (
	"sync"

	hraft "github.com/hashicorp/raft"
)

// peerTransport is what the library needs of a transport.
type peerTransport interface {
	hraft.Transport
	hraft.WithPreVote
	hraft.WithClose
}

// filter is a transport that keeps some of what other servers send from the library.
type filter struct {
	peerTransport
	answered func(hraft.RPC) bool // answers, if the library is not to
	requests chan hraft.RPC
	done     chan struct{}
	closing  sync.Once
}

func newFilter(t peerTransport, answered func(hraft.RPC) bool) *filter {
	f := &filter{peerTransport: t, answered: answered, requests: make(chan hraft.RPC), done: make(chan struct{})}
	go f.sort() // ends with Close
	return f
}

func (f *filter) sort() {
	for {
		select {
		case <-f.done:
			return
		case rpc := <-f.peerTransport.Consumer():
			if f.answered(rpc) {
				continue
			}
			select {
			case f.requests <- rpc:
			case <-f.done:
				rpc.Respond(nil, hraft.ErrRaftShutdown)
				return
			}
		}
	}
}

// Consumer implements the library's transport.
func (f *filter) Consumer() <-chan hraft.RPC { return f.requests }

// Close implements the library's transport.
func (f *filter) Close() error {
	f.closing.Do(func() { close(f.done) })
	return f.peerTransport.Close()
}
