package transport

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// Acceptor is what a carrier's server needs of the control plane.
type Acceptor interface {
	// Serve runs one link until it is over.
	Serve(ctx context.Context, device string, conn Conn) error
	// AcceptTunnel takes a byte stream that a device opened. With an error the carrier closes it.
	AcceptTunnel(device, id string, conn net.Conn) error
}

// leaderWait is how long a device's link waits at a server for an election to end: it hears of the new leader at once.
const leaderWait = 10 * time.Second

// Gate stands between the carriers' servers, which live as long as the process, and the hub, which lives for one term. Away
// from the leader it sends devices there.
type Gate struct {
	mu      sync.Mutex
	hub     *Hub          // nil: this server does not lead
	leaders []string      // where devices are sent when it does not
	changed chan struct{} // closed at the next change
}

// NewGate returns a gate that knows no leader.
func NewGate() *Gate { return &Gate{changed: make(chan struct{})} }

// Lead lets links in to the hub of this server, until the returned function is called.
func (g *Gate) Lead(hub *Hub) (stop func()) {
	g.change(func() { g.hub = hub })
	return func() {
		g.change(func() {
			if g.hub == hub {
				g.hub = nil
			}
		})
	}
}

// Follow notes the addresses (host:port) of the leader, where links are sent while this server does not lead. Without any,
// links wait for an election.
func (g *Gate) Follow(leaders ...string) { g.change(func() { g.leaders = leaders }) }

func (g *Gate) change(set func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	set()
	close(g.changed)
	g.changed = make(chan struct{})
}

// Serve implements Acceptor.
func (g *Gate) Serve(ctx context.Context, device string, conn Conn) error {
	timer := time.NewTimer(leaderWait)
	defer timer.Stop()
	for {
		g.mu.Lock()
		hub, leaders, changed := g.hub, g.leaders, g.changed
		g.mu.Unlock()
		if hub != nil {
			return hub.Serve(ctx, device, conn)
		}
		if len(leaders) > 0 {
			return sendWithin(conn, &linkpb.Envelope{Redirect: leaders})
		}
		select {
		case <-changed:
		case <-timer.C:
			return sendWithin(conn, &linkpb.Envelope{})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AcceptTunnel implements Acceptor.
func (g *Gate) AcceptTunnel(device, id string, conn net.Conn) error {
	g.mu.Lock()
	hub := g.hub
	g.mu.Unlock()
	if hub == nil {
		return errors.New("transport: this server does not lead")
	}
	return hub.AcceptTunnel(device, id, conn)
}

// Dial opens a byte stream to a device that is linked to this server.
func (g *Gate) Dial(ctx context.Context, device string) (net.Conn, error) {
	g.mu.Lock()
	hub := g.hub
	g.mu.Unlock()
	if hub == nil {
		return nil, errors.New("this server does not lead")
	}
	return hub.Dial(ctx, device)
}
