package transporttest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

// Lab is what the suite needs of a carrier.
type Lab interface {
	// Listen starts a server under a name of the test's choice and returns its address.
	Listen(t *testing.T, name string, a transport.Acceptor) (address string)
	// Stop takes that server away at once.
	Stop(address string)
	// Carrier returns a device's end.
	Carrier(t *testing.T, device string, servers ...string) transport.Carrier
	// Break ends the device's present connections.
	Break(device string)
}

// bench is one test's cluster.
type bench struct {
	t     *testing.T
	lab   Lab
	owner *Owner
}

func newBench(t *testing.T, lab Lab) *bench { return &bench{t: t, lab: lab, owner: NewOwner()} }

// hub starts a hub of the bench's owner; stop ends its term.
func (b *bench) hub(epoch uint64) (hub *transport.Hub, stop func()) {
	hub = transport.NewHub(transport.HubConfig{Epoch: epoch, Owner: b.owner, Logger: quiet()})
	return hub, b.run(hub.Run)
}

// leader starts a server that leads.
func (b *bench) leader(epoch uint64) (address string, gate *transport.Gate, hub *transport.Hub) {
	gate = transport.NewGate()
	hub, _ = b.hub(epoch)
	b.owner.Use(hub)
	gate.Lead(hub)
	return b.lab.Listen(b.t, "server", gate), gate, hub
}

// device starts a device's link.
func (b *bench) device(name string, servers ...string) (*Device, *transport.Link) {
	device := NewDevice()
	return device, b.link(name, device, servers...)
}

func (b *bench) link(name string, device *Device, servers ...string) *transport.Link {
	link := transport.NewLink(transport.LinkConfig{
		Name: name, Device: device, Carriers: []transport.Carrier{b.lab.Carrier(b.t, name, servers...)},
		Logger: quiet(), Heartbeat: 100 * time.Millisecond, MinDelay: 5 * time.Millisecond, MaxDelay: 200 * time.Millisecond,
	})
	b.run(link.Run)
	return link
}

// run runs a component until the test or the returned function ends it.
func (b *bench) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			b.t.Errorf("run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			b.t.Error("a component did not end")
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// eventually waits until a condition holds.
func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	b.eventuallyWithin(15*time.Second, what, holds)
}

func (b *bench) eventuallyWithin(patience time.Duration, what string, holds func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			b.t.Fatalf("did not come true: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
