package transporttest

import (
	"time"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// testRepeats has a device's messages come twice, late, with one missing before them, and from an earlier start of the device: the
// owner hears of each once, in order, and of none that is old.
func testRepeats(b *bench) {
	address, _, _ := b.leader(1)
	conn, err := b.lab.Carrier(b.t, "a", address).Connect(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	guard := time.AfterFunc(20*time.Second, func() { conn.Close() })
	defer guard.Stop()
	send := func(epoch, seq uint64, full bool, key, value string) {
		b.t.Helper()
		e := &linkpb.Envelope{Epoch: epoch, Seq: seq, Full: full, Items: []*linkpb.Item{{Key: key, Value: []byte(value)}}}
		if err := conn.Send(e); err != nil {
			b.t.Fatal(err)
		}
	}
	// until reads the hub's messages until one says so.
	until := func(what string, says func(*linkpb.Envelope) bool) {
		b.t.Helper()
		for {
			e, err := conn.Recv()
			if err != nil {
				b.t.Fatalf("%s: %v", what, err)
			}
			if says(e) {
				return
			}
		}
	}
	acked := func(epoch, seq uint64) func(*linkpb.Envelope) bool {
		return func(e *linkpb.Envelope) bool { return e.AckEpoch == epoch && e.AckSeq == seq }
	}
	send(5, 1, true, "k", "1")
	until("the first", acked(5, 1))
	send(5, 2, false, "k", "2")
	until("the second", acked(5, 2))
	send(5, 1, true, "k", "1") // late
	send(5, 2, false, "k", "2")
	send(4, 9, true, "k", "of an earlier start")
	send(5, 4, false, "k", "4") // the third is missing
	until("the whole state is asked for", func(e *linkpb.Envelope) bool { return e.WantFull })
	send(5, 5, true, "k", "5")
	until("the whole state", acked(5, 5))
	if got, n := b.owner.Reported("a")["k"], b.owner.Count("a", "k"); got != "5" || n != 3 {
		b.t.Fatalf("the owner has %q after %d reports, want 5 after 3", got, n)
	}
}
