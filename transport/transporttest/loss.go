package transporttest

import (
	"maps"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoal-edge/shoal/test/need"
	"github.com/shoal-edge/shoal/transport"
)

// inside is set in the environment of a test that runs in a network of its own.
const inside = "SHOAL_TEST_NETWORK"

const (
	lossPatience = 2 * time.Minute
	// noticed is how long a device may take a path on which nothing comes any more for one that works, and a little.
	noticed = 45 * time.Second
)

// inNetwork runs a test once more, alone, in a network that nobody else has, where packets can be dropped.
func inNetwork(t *testing.T, test func(t *testing.T)) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	need.Root(t)
	nft := need.Command(t, "nft")
	if os.Getenv(inside) == "" {
		t.Parallel() // it waits for most of the time
		pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run="+pattern, "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("in a network of its own: %v\n%s", err, out)
		}
		return
	}
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(nft, "list", "ruleset").CombinedOutput(); err != nil || len(out) > 0 {
		need.Missing(t, "nft: %v: %s", err, out)
	}
	test(t)
}

// drop has the packets that a rule of nftables matches dropped, instead of those before.
func drop(t *testing.T, rule string) {
	t.Helper()
	rules := "add table inet loss\ndelete table inet loss\n"
	if rule != "" {
		rules += "table inet loss {\n chain in {\n  type filter hook input priority 0;\n  " + rule + " drop\n }\n}\n"
	}
	cmd := exec.Command(need.Command(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", rules, err, out)
	}
}

// testLoss has a device come up, learn what it should have, report and come back while three packets of ten are lost, in each direction.
func testLoss(b *bench) {
	address, _, _ := b.leader(1)
	drop(b.t, "numgen random mod 100 < 30")
	device := NewDevice()
	for _, key := range []string{"p0", "p1", "p2"} {
		b.owner.Set("a", key, strings.Repeat(key, 2000))
	}
	link := transport.NewLink(transport.LinkConfig{
		Name: "a", Device: device, Carriers: []transport.Carrier{b.lab.Carrier(b.t, "a", address)}, Logger: quiet(), Heartbeat: 5 * time.Second,
	})
	b.run(link.Run)
	same := func() bool { return maps.Equal(device.Desired(), b.owner.Wanted("a")) }
	b.eventuallyWithin(lossPatience, "the device has its state", same)
	b.owner.Set("a", "p0", "another")
	device.Report(link, "pods/s", "running")
	b.eventuallyWithin(lossPatience, "changes in both directions", func() bool { return same() && b.owner.Reported("a")["pods/s"] == "running" })
	b.lab.Break("a")
	b.owner.Set("a", "p1", "one more")
	device.Report(link, "pods/s", "ended")
	b.eventuallyWithin(lossPatience, "the device comes back", func() bool { return same() && b.owner.Reported("a")["pods/s"] == "ended" })
	if err := device.Wrong(); err != nil {
		b.t.Error(err)
	}
}

// testHalfOpen has the path die without a word while a link is idle, in both directions or in that to the device only. The device has to
// notice, and to come back when there is a path again.
func testHalfOpen(b *bench) {
	address, _, _ := b.leader(1)
	_, port, _ := strings.Cut(address, ":")
	b.owner.Set("a", "k", "0")
	device := NewDevice()
	link := transport.NewLink(transport.LinkConfig{
		Name: "a", Device: device, Carriers: []transport.Carrier{b.lab.Carrier(b.t, "a", address)}, Logger: quiet(), MaxDelay: time.Second,
	})
	b.run(link.Run)
	for value, rule := range map[string]string{"both": "meta l4proto tcp", "one": "tcp sport " + port} {
		b.eventuallyWithin(lossPatience, "the link is up", func() bool { return link.Connected() && maps.Equal(device.Desired(), b.owner.Wanted("a")) })
		drop(b.t, rule)
		b.owner.Set("a", "k", value)
		b.eventuallyWithin(noticed, "the device notices that nothing comes ("+value+")", func() bool { return !link.Connected() })
		if device.Desired()["k"] == value {
			b.t.Error("something came over a dead path")
		}
		drop(b.t, "")
	}
	b.eventuallyWithin(lossPatience, "the device is back", func() bool { return link.Connected() && maps.Equal(device.Desired(), b.owner.Wanted("a")) })
	if err := device.Wrong(); err != nil {
		b.t.Error(err)
	}
}
