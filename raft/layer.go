package raft

import (
	"context"
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

// streamLayer is a Layer as the library wants it, with the address under which the others know this server. It tells when a
// connection that another server had made ends.
type streamLayer struct {
	Layer
	address string
	ended   chan<- struct{}
}

func (s streamLayer) Addr() net.Addr { return address(s.address) }

func (s streamLayer) Dial(to hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.Layer.Dial(ctx, string(to))
}

func (s streamLayer) Accept() (net.Conn, error) {
	conn, err := s.Layer.Accept()
	if err != nil {
		return nil, err
	}
	return &incoming{Conn: conn, ended: s.ended}, nil
}

type incoming struct {
	net.Conn
	ended chan<- struct{}
	once  sync.Once
}

func (c *incoming) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() {
			select {
			case c.ended <- struct{}{}:
			default: // one is being looked at
			}
		})
	}
	return n, err
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
