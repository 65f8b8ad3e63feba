package transporttest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

// The worst link that counts as one: a satellite's delay, and 32 kbit/s.
const (
	slowRoundTrip = 2 * time.Second
	slowRate      = 4000 // bytes a second
	slowPatience  = 90 * time.Second
)

// testSlowLink has a device at the end of such a link come up, learn what it should have, report, carry a tunnel beside, and come back.
func testSlowLink(b *bench) {
	if testing.Short() {
		b.t.Skip("takes half a minute")
	}
	address, _, hub := b.leader(1)
	relay := NewRelay(b.t, address, slowRoundTrip/2, slowRate)
	device := NewDevice()
	for i := range 20 {
		b.owner.Set("a", fmt.Sprintf("pods/default/p%d", i), "what a pod should be, in some hundred bytes or so, as they are when they are small and many")
	}
	link := transport.NewLink(transport.LinkConfig{
		Name: "a", Device: device, Carriers: []transport.Carrier{b.lab.Carrier(b.t, "a", relay.Address)}, Logger: quiet(), Heartbeat: 5 * time.Second,
	})
	b.run(link.Run)
	same := func() bool { return maps.Equal(device.Desired(), b.owner.Wanted("a")) }
	b.eventuallyWithin(slowPatience, "the device has its state", same)

	conn, err := hub.Dial(b.t.Context(), "a")
	if err != nil {
		b.t.Fatal(err)
	}
	data := make([]byte, 8<<10)
	_, _ = rand.Read(data) // it never fails
	go func() {
		_, _ = conn.Write(data) // the other end tells
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	device.Report(link, "pods/s", "running")
	b.owner.Set("a", "pods/default/p0", "another")
	b.eventuallyWithin(slowPatience, "a change arrives beside a tunnel", same)
	b.eventuallyWithin(slowPatience, "a status arrives beside a tunnel", func() bool { return b.owner.Reported("a")["pods/s"] == "running" })
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, data) {
		b.t.Errorf("the tunnel brought %d of %d bytes back: %v", len(got), len(data), err)
	}
	_ = conn.Close()

	relay.Break()
	b.owner.Set("a", "pods/default/p1", "one more")
	device.Report(link, "pods/s", "ended")
	b.eventuallyWithin(slowPatience, "the device comes back", func() bool { return same() && b.owner.Reported("a")["pods/s"] == "ended" })
	if err := device.Wrong(); err != nil {
		b.t.Error(err)
	}
}
