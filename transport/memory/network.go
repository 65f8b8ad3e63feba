// Package memory is the carrier that moves mailboxes and tunnels inside one process, for tests and for demonstrations
// without a network. It can be told to fail as networks do.
package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
)

// Network joins servers and devices by name.
type Network struct {
	mu      sync.Mutex
	servers map[string]transport.Acceptor
	faults  map[string]Fault // by device
	links   map[*link]bool
	running sync.WaitGroup
}

// Fault is what a device's link suffers. The zero Fault is a link that works.
type Fault struct {
	// Cut ends the link and lets no new one come up.
	Cut bool
	// Delay is how long each message is on its way.
	Delay time.Duration
	// Drop and Duplicate choose messages that vanish or arrive twice. They may be called from several goroutines.
	Drop, Duplicate func(toDevice bool, e *linkpb.Envelope) bool
}

// NewNetwork returns a network without servers.
func NewNetwork() *Network {
	return &Network{
		servers: make(map[string]transport.Acceptor), faults: make(map[string]Fault), links: make(map[*link]bool),
	}
}

// Listen puts a server at an address, until Remove.
func (n *Network) Listen(address string, server transport.Acceptor) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[address] = server
}

// Remove takes a server away, as if its power had failed.
func (n *Network) Remove(address string) {
	n.mu.Lock()
	delete(n.servers, address)
	n.mu.Unlock()
	n.cut(func(l *link) bool { return l.address == address })
}

// SetFault changes what a device's link suffers, the present one included.
func (n *Network) SetFault(device string, fault Fault) {
	n.mu.Lock()
	n.faults[device] = fault
	n.mu.Unlock()
	if fault.Cut {
		n.Break(device)
	}
}

// Break ends a device's present link; a new one may come up at once.
func (n *Network) Break(device string) { n.cut(func(l *link) bool { return l.device == device }) }

// Wait returns when all links are over.
func (n *Network) Wait() { n.running.Wait() }

func (n *Network) cut(which func(*link) bool) {
	n.mu.Lock()
	var hit []*link
	for l := range n.links {
		if which(l) {
			hit = append(hit, l)
		}
	}
	n.mu.Unlock()
	for _, l := range hit {
		l.close()
	}
}

func (n *Network) fault(device string) Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.faults[device]
}

// Carrier returns a device's end of the network.
func (n *Network) Carrier(device string, servers ...string) *Carrier {
	c := &Carrier{network: n, device: device}
	c.finder.SetServers(servers)
	return c
}

// Carrier is a device's end.
type Carrier struct {
	network *Network
	device  string
	finder  transport.Finder
}

// Name implements transport.Carrier.
func (c *Carrier) Name() string { return "memory" }

// SetServers replaces the list of servers.
func (c *Carrier) SetServers(servers []string) { c.finder.SetServers(servers) }

// Connect implements transport.Carrier.
func (c *Carrier) Connect(ctx context.Context) (transport.Conn, error) {
	conn, err := c.finder.Connect(ctx, c.open)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	return conn, nil
}

func (c *Carrier) open(_ context.Context, address string) (transport.Conn, error) {
	n := c.network
	n.mu.Lock()
	defer n.mu.Unlock()
	server := n.servers[address]
	if server == nil || n.faults[c.device].Cut {
		return nil, errors.New("connection refused")
	}
	l := newLink(n, c.device, address, server)
	n.links[l] = true
	n.running.Go(l.serve)
	return end{link: l, toDevice: false}, nil
}
