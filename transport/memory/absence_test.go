package memory_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
	"github.com/shoal-edge/shoal/transport/memory"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// TestAbsence has a device away for seconds and for days, and links on which one direction swallows everything, while both ends change.
// Each time they agree within a minute of the fault's end, and nothing is applied twice.
func TestAbsence(t *testing.T) {
	swallow := func(toDevice bool) memory.Fault {
		return memory.Fault{Drop: func(to bool, _ *linkpb.Envelope) bool { return to == toDevice }}
	}
	for name, fault := range map[string]memory.Fault{
		"cut": {Cut: true}, "nothing reaches the device": swallow(true), "nothing reaches the server": swallow(false),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, owner, device := memory.NewNetwork(), transporttest.NewOwner(), transporttest.NewDevice()
				logger := slog.New(slog.DiscardHandler)
				hub, gate := transporttest.Lead(owner, transport.HubConfig{})
				network.Listen("server", gate)
				link := transport.NewLink(transport.LinkConfig{
					Name: "a", Device: device, Carriers: []transport.Carrier{network.Carrier("a", "server")}, Logger: logger,
				})
				ctx, cancel := context.WithCancel(context.Background())
				go hub.Run(ctx)
				go link.Run(ctx)
				for round, away := range []time.Duration{5 * time.Second, time.Minute, time.Hour, 7 * 24 * time.Hour} {
					network.SetFault("a", fault)
					for i := range 50 {
						owner.Set("a", fmt.Sprint("k", i%20), fmt.Sprint(round, i))
						device.Report(link, fmt.Sprint("s", i%10), fmt.Sprint(round, i))
						time.Sleep(away / 50)
					}
					network.SetFault("a", memory.Fault{})
					agree := func() bool { return maps.Equal(device.Desired(), owner.Wanted("a")) && reported(device, owner) }
					for end := time.Now().Add(time.Minute); !agree(); time.Sleep(50 * time.Millisecond) {
						if time.Now().After(end) {
							t.Fatalf("after %v away: has %v, wanted %v", away, device.Desired(), owner.Wanted("a"))
						}
					}
				}
				if err := device.Wrong(); err != nil {
					t.Error(err)
				}
				cancel()
				network.Wait()
			})
		})
	}
}
