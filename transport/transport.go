// Package transport owns the link between the control plane and a device: a mailbox with epochs, sequence numbers and
// acknowledgements that any carrier moves. Delivery is at least once, application exactly once: a full state first, then
// increments; a gap asks for a full one. Everything starts from the device, tunnels for logs, exec and port-forward too.
package transport

import (
	"context"
	"net"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// Item is one entry of a replicated map, as Envelope carries it.
type Item struct {
	Key     string
	Value   []byte
	Deleted bool
}

// Device is what the device's end of a link needs from the agent.
type Device interface {
	// Position is the epoch and sequence number last applied, as the device's disk has them.
	Position() (epoch, seq uint64)
	// Apply makes changes of the desired state durable, then returns; they are acknowledged only after that. With full
	// set, items are the whole state and what is not listed is gone.
	Apply(ctx context.Context, epoch, seq uint64, full bool, items []Item) error
	// Status is the whole status that the device reports; it is sent at each (re)connection.
	Status() []Item
	// ServeTunnel serves one tunnel that the control plane asked for and returns when it is over.
	ServeTunnel(ctx context.Context, conn net.Conn)
}

// Owner is what the control plane's end, the Hub, tells its owner.
type Owner interface {
	// Connected is called when a device's link comes up: the owner answers with the device's whole desired state.
	Connected(device string) []Item
	// Heard is called for every message of the device, heartbeats included.
	Heard(device string)
	// Report makes a device's status changes durable, then returns; they are acknowledged only after that.
	Report(ctx context.Context, device string, full bool, items []Item) error
	// Disconnected is called when the link goes down.
	Disconnected(device string)
}

// Carrier is how a device reaches a control plane: gRPC, MQTT, memory.
type Carrier interface {
	Name() string
	// Connect dials until ctx ends and returns a link to a server that leads.
	Connect(ctx context.Context) (Conn, error)
}

// Conn is one established mailbox link. Send and Recv may run at the same time; each is called by one goroutine only.
type Conn interface {
	Send(*linkpb.Envelope) error
	Recv() (*linkpb.Envelope, error)
	// OpenTunnel opens a byte stream for a tunnel that the control plane asked for (device side only).
	OpenTunnel(ctx context.Context, id string) (net.Conn, error)
	Close() error
}
