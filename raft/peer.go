package raft

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// A server's name is bound to its key for good; its address is a hint that may change, and another server may answer at an old
// one. So everything that is sent, and every vote that is kept, goes by the name.
//
// In the list of members, which is the library's, an address takes one of these forms:
//
//	host:port            where the server was last
//	witness/host:port    the same of a witness
//	unknown/name         another server has its address now, and it has not told its new one yet
const (
	witnessPrefix = "witness/"
	unknownPrefix = "unknown/"
)

// memberOf reads one entry of the library's list.
func memberOf(s hraft.Server) Server {
	m := Server{ID: string(s.ID), Voter: s.Suffrage == hraft.Voter}
	m.Address, m.Witness = strings.CutPrefix(string(s.Address), witnessPrefix)
	if strings.HasPrefix(m.Address, unknownPrefix) {
		m.Address = ""
	}
	return m
}

// listed is the address of a member in the library's list.
func (s *Server) listed() hraft.ServerAddress {
	address := s.Address
	if address == "" {
		address = unknownPrefix + s.ID
	}
	if s.Witness {
		address = witnessPrefix + address
	}
	return hraft.ServerAddress(address)
}

// transport is the library's, with names in all that goes out: in the bytes that votes are kept by, and in the target of each
// connection. A vote for an address would count for whoever has that address later in the same term, and an acknowledgement of
// who has it now would count for the one who had it before.
type transport struct {
	*hraft.NetworkTransport
}

const nameEnd = "@" // no name has it

func named(id hraft.ServerID, address string) string { return string(id) + nameEnd + address }

// EncodePeer names a server in messages and in the vote on disk.
func (t *transport) EncodePeer(id hraft.ServerID, address hraft.ServerAddress) []byte {
	return []byte(named(id, string(address)))
}

// DecodePeer returns the address.
func (t *transport) DecodePeer(peer []byte) hraft.ServerAddress {
	_, address, ok := strings.Cut(string(peer), nameEnd)
	if !ok {
		return hraft.ServerAddress(peer)
	}
	return hraft.ServerAddress(address)
}

// target is what streamLayer.Dial gets; it is also the key under which connections are kept for the next message.
func target(id hraft.ServerID, address hraft.ServerAddress) hraft.ServerAddress {
	m := memberOf(hraft.Server{ID: id, Address: address})
	return hraft.ServerAddress(named(id, m.Address))
}

func (t *transport) AppendEntriesPipeline(id hraft.ServerID, to hraft.ServerAddress) (hraft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, target(id, to))
	if err != nil {
		return nil, err
	}
	return pipeline{p}, nil
}

// pipeline is the library's, with an end to each wait. The library's sender waits for room in it for ever, also when nobody takes
// answers out any more, because its reader has met a refusal: then the follower got no more entries from this leader, and a
// server that was told to stop waited for its sender. A pipeline that is closed sends the library back to single messages.
type pipeline struct{ hraft.AppendPipeline }

func (p pipeline) AppendEntries(args *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse) (hraft.AppendFuture, error) {
	stuck := time.AfterFunc(ioTimeout, func() { _ = p.Close() })
	defer stuck.Stop()
	return p.AppendPipeline.AppendEntries(args, resp)
}

func (t *transport) AppendEntries(
	id hraft.ServerID, to hraft.ServerAddress, args *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse,
) error {
	return t.NetworkTransport.AppendEntries(id, target(id, to), args, resp)
}

func (t *transport) RequestVote(
	id hraft.ServerID, to hraft.ServerAddress, args *hraft.RequestVoteRequest, resp *hraft.RequestVoteResponse,
) error {
	return t.NetworkTransport.RequestVote(id, target(id, to), args, resp)
}

func (t *transport) RequestPreVote(
	id hraft.ServerID, to hraft.ServerAddress, args *hraft.RequestPreVoteRequest, resp *hraft.RequestPreVoteResponse,
) error {
	return t.NetworkTransport.RequestPreVote(id, target(id, to), args, resp)
}

func (t *transport) InstallSnapshot(
	id hraft.ServerID, to hraft.ServerAddress, args *hraft.InstallSnapshotRequest, resp *hraft.InstallSnapshotResponse, data io.Reader,
) error {
	return t.NetworkTransport.InstallSnapshot(id, target(id, to), args, resp, data)
}

func (t *transport) TimeoutNow(
	id hraft.ServerID, to hraft.ServerAddress, args *hraft.TimeoutNowRequest, resp *hraft.TimeoutNowResponse,
) error {
	return t.NetworkTransport.TimeoutNow(id, target(id, to), args, resp)
}

// hints are addresses that servers have told and that the list of members does not have yet. They let servers that all got new
// addresses find each other before there is a leader to write the list.
type hints struct {
	mu        sync.Mutex
	addresses map[string]string // by name, of members only
}

func (h *hints) set(id, address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses[id] = address
}

func (h *hints) get(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addresses[id]
}

func (h *hints) drop(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.addresses, id)
}

// Hint says where a server is that the list of members may have elsewhere. Any server may be told.
func (n *Node) Hint(id, address string) {
	switch s, ok := find(n.Servers(), id); {
	case !ok:
	case s.Address == address:
		n.hints.drop(id)
	default:
		n.hints.set(id, address)
	}
}

// reach connects to a server by its name: where it said that it is, or else where the list of members has it.
func (s streamLayer) reach(ctx context.Context, to string) (net.Conn, error) {
	id, address, ok := strings.Cut(to, nameEnd)
	if !ok {
		return nil, fmt.Errorf("%q names no server", to)
	}
	if hint := s.node.hints.get(id); hint != "" && hint != address {
		half, cancel := halfOf(ctx)
		conn, err := s.meet(half, id, hint)
		cancel()
		if err == nil {
			return conn, nil
		}
	}
	if address == "" {
		return nil, fmt.Errorf("nobody knows where %s is now", id)
	}
	conn, err := s.meet(ctx, id, address)
	if err == nil {
		s.node.hints.drop(id) // it was wrong, or there was none
	}
	return conn, err
}

// meet connects to an address and makes sure who is there.
func (s streamLayer) meet(ctx context.Context, id, address string) (net.Conn, error) {
	conn, err := s.Layer.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := s.node.greet(ctx, conn, id); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s at %s: %w", id, address, err)
	}
	return conn, nil
}

// halfOf bounds a first try by half of the time that is left.
func halfOf(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}
