package transporttest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
)

// Run runs the suite over one carrier; makeLab is called for each test.
func Run(t *testing.T, makeLab func(t *testing.T) Lab) {
	tests := []struct {
		name string
		test func(b *bench)
	}{
		{"ConvergesOverBreaks", testConverges},
		{"ResumesWithTheDifference", testResume},
		{"LargeStateInParts", testParts},
		{"NewTermSendsAll", testNewTerm},
		{"StaleEpochRefused", testStale},
		{"FollowsRedirects", testRedirect},
		{"WaitsForAnElection", testElection},
		{"LearnsServers", testServers},
		{"SlowDeviceBlocksNobody", testSlow},
		{"NewerLinkReplacesOlder", testReplace},
		{"SilentLinkBeats", testHeartbeat},
		{"OversizedMessageRefused", testOversized},
		{"OldMessagesRefused", testRepeats},
		{"TunnelEcho", testTunnelEcho},
		{"TunnelHTTP", testTunnelHTTP},
		{"TunnelDeadlines", testTunnelDeadlines},
		{"TunnelCut", testTunnelCut},
		{"TunnelStrangers", testTunnelStrangers},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(newBench(t, makeLab(t))) })
	}
}

// RunOverTCP is Run for a carrier over TCP, and has it cross a link that is as bad as they come.
func RunOverTCP(t *testing.T, makeLab func(t *testing.T) Lab) {
	Run(t, makeLab)
	t.Run("SlowLink", func(t *testing.T) { testSlowLink(newBench(t, makeLab(t))) })
	t.Run("Loss", func(t *testing.T) {
		inNetwork(t, func(t *testing.T) { testLoss(newBench(t, makeLab(t))) })
	})
	t.Run("HalfOpen", func(t *testing.T) {
		inNetwork(t, func(t *testing.T) { testHalfOpen(newBench(t, makeLab(t))) })
	})
}

// testConverges changes both maps while the link breaks again and again: nothing is lost, nothing is applied twice.
func testConverges(b *bench) {
	address, _, _ := b.leader(1)
	device, link := b.device("a", address)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		key := fmt.Sprintf("pods/default/p%d", random.IntN(40))
		value := fmt.Sprint(i)
		if random.IntN(4) == 0 {
			value = ""
		}
		b.owner.Set("a", key, value)
		device.Report(link, fmt.Sprintf("pods/s%d", random.IntN(20)), fmt.Sprint(i))
		if i%40 == 20 {
			b.lab.Break("a")
		}
		if i%10 == 0 {
			time.Sleep(time.Millisecond) // let some of it through
		}
	}
	b.eventually("the device has what is wanted", func() bool { return maps.Equal(device.Desired(), b.owner.Wanted("a")) })
	b.eventually("the status has arrived", func() bool {
		reported := b.owner.Reported("a")
		for _, item := range device.Status() {
			if reported[item.Key] != string(item.Value) {
				return false
			}
		}
		return true
	})
	if err := device.Wrong(); err != nil {
		b.t.Error(err)
	}
}

func testResume(b *bench) {
	address, _, _ := b.leader(1)
	for i := range 50 {
		b.owner.Set("a", fmt.Sprint("k", i), "v")
	}
	device, _ := b.device("a", address)
	b.eventually("the whole state", func() bool { return len(device.Desired()) == 50 })
	before := device.Applied()

	heard := b.owner.Heartbeats("a")
	b.lab.Break("a")
	b.eventually("the link is back", func() bool { return b.owner.Up("a") == 1 && b.owner.Heartbeats("a") > heard+3 })
	if after := device.Applied(); len(after) != len(before) {
		b.t.Fatalf("a link that came back with nothing new applied %+v", after[len(before):])
	}
	b.owner.Set("a", "k7", "")
	b.eventually("the change", func() bool { return len(device.Desired()) == 49 })
	after := device.Applied()
	if last := after[len(after)-1]; last.Full || last.Items != 1 {
		b.t.Fatalf("a change after the link came back cost %+v", last)
	}
}

func testParts(b *bench) {
	address, _, _ := b.leader(1)
	value := strings.Repeat("x", 700<<10)
	for i := range 20 {
		b.owner.Set("a", fmt.Sprint("k", i), fmt.Sprint(i)+value)
	}
	device := NewDevice()
	for i := range 6 {
		device.status[fmt.Sprint("s", i)] = value
	}
	b.link("a", device, address)
	b.eventually("the whole state", func() bool { return maps.Equal(device.Desired(), b.owner.Wanted("a")) })
	b.eventually("the whole status", func() bool { return len(b.owner.Reported("a")) == 6 })
	if applied := device.Applied(); len(applied) != 1 || !applied[0].Full {
		b.t.Fatalf("applied %+v, want one whole state", applied)
	}
}

func testNewTerm(b *bench) {
	gate := transport.NewGate()
	first, endFirst := b.hub(1)
	b.owner.Use(first)
	stopLeading := gate.Lead(first)
	address := b.lab.Listen(b.t, "server", gate)
	b.owner.Set("a", "old", "1")
	device, link := b.device("a", address)
	b.eventually("the first state", func() bool { return len(device.Desired()) == 1 })

	stopLeading()
	endFirst()
	b.eventually("the link is down", func() bool { return !link.Connected() })
	b.owner.Use(nil)
	b.owner.Set("a", "old", "")
	b.owner.Set("a", "new", "2")
	second, _ := b.hub(2)
	b.owner.Use(second)
	gate.Lead(second)
	b.eventually("the second state", func() bool { return maps.Equal(device.Desired(), map[string]string{"new": "2"}) })
	if epoch, _ := device.Position(); epoch != 2 {
		b.t.Fatalf("epoch %d, want 2", epoch)
	}
	if b.owner.Up("a") != 1 {
		b.t.Fatalf("the device is up %d times", b.owner.Up("a"))
	}
}

func testStale(b *bench) {
	address, _, _ := b.leader(4)
	device := NewDevice()
	device.epoch, device.seq = 5, 9
	b.owner.Set("a", "k", "stale")
	link := b.link("a", device, address)
	b.eventually("the device has called", func() bool { return link != nil && b.lab != nil })
	time.Sleep(100 * time.Millisecond) // nothing may happen
	if len(device.Applied()) > 0 || link.Connected() {
		b.t.Fatalf("a server of an older term was believed: %+v", device.Applied())
	}
}

func testRedirect(b *bench) {
	gates := []*transport.Gate{transport.NewGate(), transport.NewGate()}
	addresses := []string{b.lab.Listen(b.t, "one", gates[0]), b.lab.Listen(b.t, "two", gates[1])}
	hub, end := b.hub(1)
	b.owner.Use(hub)
	stopLeading := gates[1].Lead(hub)
	gates[0].Follow(addresses[1])
	b.owner.Set("a", "k", "1")
	// The device knows the follower only.
	device, _ := b.device("a", addresses[0])
	b.eventually("the state came from the leader", func() bool { return len(device.Desired()) == 1 })

	next, _ := b.hub(2)
	gates[1].Follow(addresses[0])
	stopLeading()
	end()
	b.owner.Use(next)
	began := time.Now()
	gates[0].Lead(next)
	b.owner.Set("a", "k", "2")
	b.eventually("the state came from the next leader", func() bool { return device.Desired()["k"] == "2" })
	if took := time.Since(began); took > 2*time.Second {
		b.t.Errorf("finding the next leader took %v", took)
	}
}

func testElection(b *bench) {
	gate := transport.NewGate()
	address := b.lab.Listen(b.t, "server", gate)
	device, link := b.device("a", address)
	time.Sleep(50 * time.Millisecond)
	if link.Connected() {
		b.t.Fatal("a link without a leader counts as connected")
	}
	hub, _ := b.hub(1)
	b.owner.Use(hub)
	b.owner.Set("a", "k", "1")
	gate.Lead(hub)
	b.eventually("the state", func() bool { return len(device.Desired()) == 1 })
}

func testServers(b *bench) {
	gates := []*transport.Gate{transport.NewGate(), transport.NewGate()}
	addresses := []string{b.lab.Listen(b.t, "one", gates[0]), b.lab.Listen(b.t, "two", gates[1])}
	hub, end := b.hub(1)
	b.owner.Use(hub)
	stopLeading := gates[0].Lead(hub)
	b.owner.Set("a", transport.ServersKey, strings.Join(addresses, "\n"))
	device, _ := b.device("a", addresses[0])
	b.eventually("the list of servers", func() bool { return len(device.Desired()) == 1 })

	next, _ := b.hub(2)
	stopLeading()
	end()
	b.lab.Stop(addresses[0])
	b.owner.Use(next)
	began := time.Now()
	gates[1].Lead(next)
	b.owner.Set("a", "k", "2")
	b.eventually("the state from the other server", func() bool { return device.Desired()["k"] == "2" })
	if took := time.Since(began); took > 2*time.Second {
		b.t.Errorf("finding the other server took %v", took)
	}
}

func testSlow(b *bench) {
	address, _, _ := b.leader(1)
	slow, _ := b.device("slow", address)
	fast, _ := b.device("fast", address)
	b.owner.Set("slow", "k", "0")
	b.owner.Set("fast", "k", "0")
	b.eventually("both are up", func() bool { return len(slow.Desired()) == 1 && len(fast.Desired()) == 1 })
	release := slow.Hold()
	defer release()
	for i := range 300 {
		b.owner.Set("slow", "k", fmt.Sprint(i))
		b.owner.Set("slow", fmt.Sprint("more", i%50), strings.Repeat("y", 20<<10))
		b.owner.Set("fast", "k", fmt.Sprint(i))
	}
	b.eventually("the fast one has all", func() bool { return fast.Desired()["k"] == "299" })
	if slow.Desired()["k"] != "0" {
		b.t.Fatal("the slow one was not slow")
	}
	before := len(slow.Applied())
	release()
	b.eventually("the slow one has all", func() bool { return maps.Equal(slow.Desired(), b.owner.Wanted("slow")) })
	if n := len(slow.Applied()) - before; n > 6 {
		b.t.Errorf("600 changes of 51 keys were sent in %d messages, want them coalesced", n)
	}
}

func testReplace(b *bench) {
	address, _, hub := b.leader(1)
	b.owner.Set("a", "k", "1")
	first, firstLink := b.device("a", address)
	b.eventually("the first link", func() bool { return len(first.Desired()) == 1 })
	second, _ := b.device("a", address)
	b.eventually("the second link", func() bool { return len(second.Desired()) == 1 })
	b.eventually("one of them is down", func() bool { return !firstLink.Connected() || b.owner.Up("a") == 1 })
	// The two go on taking the link from each other: there is none for a moment, and never are there two.
	b.eventually("there is one link", func() bool {
		got := hub.Devices()
		if len(got) > 1 {
			b.t.Fatalf("devices %v", got)
		}
		return len(got) == 1
	})
}

func testHeartbeat(b *bench) {
	address, _, _ := b.leader(1)
	_, link := b.device("a", address)
	b.eventually("some heartbeats", func() bool { return b.owner.Heartbeats("a") >= 12 })
	if !link.Connected() {
		b.t.Fatal("the idle link went down")
	}
	// Twelve heartbeats of 100 ms take longer than the device waits for an answer: the hub has answered.
	b.owner.mu.Lock()
	up := b.owner.up["a"]
	b.owner.mu.Unlock()
	if up != 1 {
		b.t.Fatalf("the link was up %d times", up)
	}
}

func testOversized(b *bench) {
	address, _, _ := b.leader(1)
	carrier := b.lab.Carrier(b.t, "big", address)
	conn, err := carrier.Connect(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	item := &linkpb.Item{Key: "k", Value: make([]byte, transport.MaxMessage)}
	err = conn.Send(&linkpb.Envelope{Epoch: 1, Seq: 1, Full: true, Items: []*linkpb.Item{item}})
	for range 3 {
		if err == nil {
			_, err = conn.Recv()
		}
	}
	if err == nil {
		b.t.Fatal("a message above the limit was taken")
	}
	if len(b.owner.Reported("big")) > 0 {
		b.t.Fatal("a message above the limit was reported")
	}
	// An item that no message can carry does not keep the rest from coming.
	b.owner.Set("a", "huge", strings.Repeat("z", transport.MaxMessage))
	b.owner.Set("a", "k", "1")
	device, _ := b.device("a", address)
	b.eventually("the rest of the state", func() bool { return device.Desired()["k"] == "1" })
}
