package raft

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Layer carries the connections between servers. Whoever gives it has authenticated both ends.
type Layer interface {
	net.Listener
	// Dial connects to the server at an address of the membership.
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// streamLayer is a Layer as the library wants it, with the address under which the others know this server. It lets in only
// servers of the same cluster, and tells when a connection that another server had made ends.
type streamLayer struct {
	Layer
	address string
	node    *Node
}

func (s streamLayer) Addr() net.Addr { return address(s.address) }

func (s streamLayer) Dial(to hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.reach(ctx, string(to))
}

func (s streamLayer) Accept() (net.Conn, error) {
	conn, err := s.Layer.Accept()
	if err != nil {
		return nil, err
	}
	return &incoming{Conn: conn, node: s.node}, nil
}

type incoming struct {
	net.Conn
	node    *Node
	greeted bool
	once    sync.Once
}

// Read answers the greeting first, so that accepting waits for nobody. The library reads in one goroutine.
func (c *incoming) Read(p []byte) (int, error) {
	if !c.greeted {
		if err := c.node.answerGreeting(c.Conn); err != nil {
			return 0, io.EOF // the library logs any other error, and a peer that only knocks is none
		}
		c.greeted = true
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() {
			select {
			case c.node.ended <- struct{}{}:
			default: // one is being looked at
			}
		})
	}
	return n, err
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
