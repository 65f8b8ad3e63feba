package raft

import (
	"context"
	"net"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Layer carries the connections between servers. Whoever gives it has authenticated both ends.
type Layer interface {
	net.Listener
	// Dial connects to the server at an address of the membership.
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// streamLayer is a Layer as the library wants it, with the address under which the others know this server.
type streamLayer struct {
	Layer
	address string
}

func (s streamLayer) Addr() net.Addr { return address(s.address) }

func (s streamLayer) Dial(to hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.Layer.Dial(ctx, string(to))
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
