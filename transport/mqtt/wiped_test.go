package mqtt_test

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/mqtt"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

// TestWipedBroker has the broker die again and again and come back knowing nothing, with all that went through the one before sent
// anew: both ends agree each time, nothing is applied twice, and what is of yesterday is refused as that.
func TestWipedBroker(t *testing.T) {
	l := newLab(t)
	id := l.Server(t, "server")
	var mu sync.Mutex
	var kept []packets.Packet
	keep := func(_ *mochi.Server, pk packets.Packet) (packets.Packet, error) {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, pk)
		return pk, nil
	}
	var address string // of the present broker; the network leads both ends to it
	dial := func(id *pki.Identity) func(context.Context, string) (net.Conn, error) {
		return func(ctx context.Context, _ string) (net.Conn, error) {
			mu.Lock()
			now := address
			mu.Unlock()
			return id.Dial(ctx, now, pki.ProtoMQTT)
		}
	}
	owner, device := transporttest.NewOwner(), transporttest.NewDevice()
	logger := slog.New(slog.DiscardHandler)
	hub, gate := transporttest.Lead(owner, transport.HubConfig{})
	node := l.Node(t, "a")
	link := transport.NewLink(transport.LinkConfig{
		Name: "a", Device: device, Logger: logger, Heartbeat: 100 * time.Millisecond, MinDelay: 5 * time.Millisecond, MaxDelay: 200 * time.Millisecond,
		Carriers: []transport.Carrier{mqtt.NewClient(mqtt.ClientConfig{
			Device: "a", Principal: node.Leaf().Subject.CommonName, Servers: []string{"broker:1"}, Fixed: true, Dial: dial(node),
			Keys: node.Signer(pki.RoleServer), Logger: logger,
		})},
	})
	var stop func()
	start := func() {
		now, end := startBroker(t, id, keep)
		mu.Lock()
		address, stop = now, end
		mu.Unlock()
		t.Cleanup(end)
	}
	start()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = hub.Run(ctx) })
	group.Go(func() { _ = link.Run(ctx) })
	group.Go(func() {
		_ = l.server(id, gate).Join(ctx, mqtt.RemoteConfig{
			Address: "broker:1", Principal: id.Leaf().Subject.CommonName, Acceptor: gate, Dial: dial(id),
		})
	})
	defer group.Wait()
	defer cancel()
	for round := range 3 {
		value := string(rune('a' + round))
		owner.Set("a", "wanted", value)
		device.Report(link, "reported", value)
		deadline := time.Now().Add(30 * time.Second)
		for !maps.Equal(device.Desired(), owner.Wanted("a")) || owner.Reported("a")["reported"] != value {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: has %v, reported %v", round, device.Desired(), owner.Reported("a"))
			}
			time.Sleep(5 * time.Millisecond)
		}
		l.replay(t, address, &mu, &kept)
		for deadline := time.Now().Add(20 * time.Second); round > 0 && l.refusals(mqtt.RefusedStale) == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing was refused as stale")
			}
		}
		stop()
		start()
	}
	if err := device.Wrong(); err != nil {
		t.Error(err)
	}
}

// replay sends all that was kept once more, through a client of the broker.
func (l *lab) replay(t *testing.T, address string, mu *sync.Mutex, kept *[]packets.Packet) {
	t.Helper()
	evil := newClient(t, l.Node(t, "evil"), address)
	mu.Lock()
	old := append([]packets.Packet(nil), *kept...)
	mu.Unlock()
	for _, pk := range old {
		evil.mqtt.Publish(pk.TopicName, 0, false, pk.Payload).WaitTimeout(10 * time.Second)
	}
	evil.mqtt.Disconnect(10)
}
