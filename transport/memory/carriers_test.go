package memory_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/memory"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// swallowed is a carrier whose connections a network swallows while it is told to.
type swallowed struct {
	transport.Carrier
	on *atomic.Bool
}

func (swallowed) Name() string { return "wanted" }

func (s swallowed) Connect(ctx context.Context) (transport.Conn, error) {
	if s.on.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Carrier.Connect(ctx)
}

// TestCarriers has the more wanted carrier swallowed by the network, at the start and later: the link is up by the other within
// 30 s, goes back when the better one works again, and stays there.
func TestCarriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner, device := transporttest.NewOwner(), transporttest.NewDevice()
		logger := slog.New(slog.DiscardHandler)
		hub, gate := transporttest.Lead(owner, transport.HubConfig{})
		better, other := memory.NewNetwork(), memory.NewNetwork()
		better.Listen("server", gate)
		other.Listen("server", gate)
		var block atomic.Bool
		block.Store(true)
		link := transport.NewLink(transport.LinkConfig{
			Name: "a", Device: device, Logger: logger,
			Carriers: []transport.Carrier{swallowed{better.Carrier("a", "server"), &block}, other.Carrier("a", "server")},
		})
		ctx, cancel := context.WithCancel(context.Background())
		go hub.Run(ctx)
		go link.Run(ctx)

		within := func(what string, limit time.Duration, holds func() bool) {
			t.Helper()
			for end := time.Now().Add(limit); !holds(); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("not within %v: %s", limit, what)
				}
			}
		}
		for round := range 3 {
			within("the link is up by the other carrier", 30*time.Second, func() bool { return link.Connected() && link.Carrier() == "memory" })
			time.Sleep(10 * time.Minute)
			if !link.Connected() || link.Carrier() != "memory" {
				t.Fatal("the link did not stay up while the better carrier was away")
			}
			owner.Set("a", "round", time.Duration(round).String())
			block.Store(false)
			within("the link is back on the better carrier", 17*time.Minute, func() bool { return link.Connected() && link.Carrier() == "wanted" })
			within("the state is whole", 10*time.Second, func() bool { return device.Desired()["round"] == time.Duration(round).String() })
			ups := owner.Up("a")
			time.Sleep(time.Hour)
			if link.Carrier() != "wanted" || owner.Up("a") != ups {
				t.Fatal("the link did not stay on the better carrier")
			}
			block.Store(true)
			better.Break("a")
		}
		if err := device.Wrong(); err != nil {
			t.Error(err)
		}
		cancel()
		better.Wait()
		other.Wait()
	})
}
