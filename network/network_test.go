package network

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/test/need"
)

// inNamespace moves the test's goroutine to a network namespace of its own, with a link 192.0.2.1/24. The thread is not
// unlocked, so it ends with the goroutine and takes the namespace with it.
func inNamespace(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes a network namespace")
	}
	need.Root(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		need.Missing(t, "cannot make a network namespace here: %v", err)
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	addr, _ := netlink.ParseAddr("192.0.2.1/24")
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

func prefix(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func peer(name, addr, cidr string) Peer {
	return Peer{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, PodCIDRs: prefix(cidr)}
}

func routes(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ip", "-4", "route", "show").CombinedOutput()
	if err != nil {
		t.Fatalf("ip route: %v: %s", err, out)
	}
	return string(out)
}

func TestApply(t *testing.T) {
	inNamespace(t)
	dir := t.TempDir()
	n := New(Config{CNIConfDir: filepath.Join(dir, "net.d"), DataDir: dir})
	if out, err := exec.Command("ip", "route", "add", "10.50.0.0/16", "via", "192.0.2.9").CombinedOutput(); err != nil {
		t.Fatalf("ip route add: %v: %s", err, out)
	}
	ctx := context.Background()
	apply := func(peers ...Peer) {
		t.Helper()
		if err := n.Apply(ctx, State{PodCIDRs: prefix("10.42.1.0/24"), Peers: peers}); err != nil {
			t.Fatal(err)
		}
	}

	apply(peer("b", "192.0.2.2", "10.42.2.0/24"), peer("c", "192.0.2.3", "10.42.3.0/24"))
	if got := routes(t); !strings.Contains(got, "10.42.2.0/24 via 192.0.2.2") || !strings.Contains(got, "10.42.3.0/24 via 192.0.2.3") {
		t.Errorf("routes to the peers are missing:\n%s", got)
	}
	before, err := os.Stat(filepath.Join(dir, "net.d", CNIFile))
	if err != nil {
		t.Fatal(err)
	}

	apply(peer("b", "192.0.2.4", "10.42.2.0/24")) // b moved, c left
	got := routes(t)
	if !strings.Contains(got, "10.42.2.0/24 via 192.0.2.4") || strings.Contains(got, "10.42.3.0/24") {
		t.Errorf("routes did not follow the peers:\n%s", got)
	}
	if !strings.Contains(got, "10.50.0.0/16 via 192.0.2.9") {
		t.Errorf("a route of somebody else was touched:\n%s", got)
	}
	if after, err := os.Stat(filepath.Join(dir, "net.d", CNIFile)); err != nil || !os.SameFile(before, after) {
		t.Errorf("an unchanged CNI configuration was written again (%v)", err)
	}
	out, err := exec.Command("nft", "list", "table", "ip", "shoal").CombinedOutput()
	if err != nil {
		need.Missing(t, "nft does not work here: %s", out)
	}
	if s := string(out); strings.Count(s, "masquerade") != 1 || !strings.Contains(s, "10.42.2.0/24") || strings.Contains(s, "10.42.3.0/24") {
		t.Errorf("nftables rules:\n%s", s)
	}
}

func TestApplyWithoutPodCIDR(t *testing.T) {
	dir := t.TempDir()
	n := New(Config{CNIConfDir: filepath.Join(dir, "net.d"), DataDir: dir})
	if err := n.Apply(context.Background(), State{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "net.d")); !os.IsNotExist(err) {
		t.Errorf("a network was configured before the device had a block of addresses: %v", err)
	}
}
