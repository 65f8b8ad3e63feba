package memory_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
	"github.com/shoal-edge/shoal/transport/memory"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// TestFaults has messages vanish, arrive twice and arrive late while both ends change and the link breaks: when it works
// again, both have what the other wants them to have, and nothing was applied twice or out of order.
func TestFaults(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			chance := func(percent int) func(bool, *linkpb.Envelope) bool {
				return func(bool, *linkpb.Envelope) bool {
					mu.Lock()
					defer mu.Unlock()
					return random.IntN(100) < percent
				}
			}
			network, owner, device := memory.NewNetwork(), transporttest.NewOwner(), transporttest.NewDevice()
			logger := slog.New(slog.DiscardHandler)
			hub, gate := transporttest.Lead(owner, transport.HubConfig{Retry: 20 * time.Millisecond})
			network.Listen("server", gate)
			link := transport.NewLink(transport.LinkConfig{
				Name: "a", Device: device, Carriers: []transport.Carrier{network.Carrier("a", "server")}, Logger: logger,
				Heartbeat: 50 * time.Millisecond, MinDelay: 2 * time.Millisecond, MaxDelay: 20 * time.Millisecond,
				Connect: 200 * time.Millisecond, Retry: 20 * time.Millisecond,
			})
			ctx, cancel := context.WithCancel(context.Background())
			var group sync.WaitGroup
			group.Go(func() { hub.Run(ctx) })
			group.Go(func() { link.Run(ctx) })
			defer func() {
				cancel()
				group.Wait()
				network.Wait()
			}()

			network.SetFault("a", memory.Fault{Drop: chance(20), Duplicate: chance(20), Delay: time.Millisecond})
			draw := rand.New(rand.NewPCG(seed, 1))
			for i := range 400 {
				key, value := fmt.Sprint("k", draw.IntN(30)), fmt.Sprint(i)
				if draw.IntN(4) == 0 {
					value = ""
				}
				owner.Set("a", key, value)
				device.Report(link, fmt.Sprint("s", draw.IntN(10)), fmt.Sprint(i))
				if i%5 == 0 {
					time.Sleep(time.Millisecond)
				}
				if i%70 == 69 {
					network.Break("a")
				}
			}
			network.SetFault("a", memory.Fault{})
			deadline := time.Now().Add(15 * time.Second)
			for !maps.Equal(device.Desired(), owner.Wanted("a")) || !reported(device, owner) {
				if time.Now().After(deadline) {
					t.Fatalf("has %v\nwant %v\nreported %v", device.Desired(), owner.Wanted("a"), owner.Reported("a"))
				}
				time.Sleep(2 * time.Millisecond)
			}
			if err := device.Wrong(); err != nil {
				t.Error(err)
			}
		})
	}
}

func reported(device *transporttest.Device, owner *transporttest.Owner) bool {
	have := owner.Reported("a")
	for _, item := range device.Status() {
		if have[item.Key] != string(item.Value) {
			return false
		}
	}
	return true
}
