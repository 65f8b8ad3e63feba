package dev

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// linkOf is the one link that a lab adds to the machine: the machine's end of a cable to the lab's bridge, which has a network
// namespace of its own.
func linkOf(lab string) string { return "shoal-" + lab }

// Gateway is this machine's address in the lab.
func (l *Lab) Gateway() string { return fmt.Sprintf("10.77.%d.1", l.cfg.Subnet) }

func (l *Lab) startNetwork(ctx context.Context) error {
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, l.cfg.Subnet, 0}), 24)
	if err := free(subnet); err != nil {
		return err
	}
	box, err := newSandbox(l.state, "bridge")
	if err != nil {
		return err
	}
	l.net = box
	link, pid := linkOf(l.cfg.Name), strconv.Itoa(box.pid)
	if err := runCommand(l.inBridge(ctx, "ip link add br0 type bridge && ip link set br0 up")); err != nil {
		return err
	}
	if err := run(ctx, "ip", "link", "add", link, "type", "veth", "peer", "name", "machine", "netns", pid); err != nil {
		return err
	}
	if err := runCommand(l.inBridge(ctx, "ip link set machine master br0 up")); err != nil {
		return err
	}
	if err := run(ctx, "ip", "addr", "add", l.Gateway()+"/24", "dev", link); err != nil {
		return err
	}
	return run(ctx, "ip", "link", "set", link, "up")
}

// free checks that no address of this machine lies in the lab's subnet.
func free(subnet netip.Prefix) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Overlaps(subnet) {
			return fmt.Errorf("%s is in use on this machine (%s): choose another subnet", subnet, p)
		}
	}
	return nil
}

// plug lays the cable between a device and the bridge.
func (l *Lab) plug(ctx context.Context, d *Device) error {
	// The kernel removes the cable of a device that was taken away a moment after its last process.
	if err := runCommand(l.inBridge(ctx, "ip link del "+d.port+" 2>/dev/null || true")); err != nil {
		return err
	}
	err := run(ctx, "ip", "link", "add", d.port, "netns", strconv.Itoa(l.net.pid),
		"type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(d.box.pid))
	if err != nil {
		return err
	}
	if err := runCommand(l.inBridge(ctx, "ip link set "+d.port+" master br0 up")); err != nil {
		return err
	}
	// A board keeps its hardware address when it loses power; its neighbours remember it.
	mac := fmt.Sprintf("02:00:0a:4d:%02x:%02x", l.cfg.Subnet, d.number)
	return runCommand(d.Command(ctx, "sh", "-c", fmt.Sprintf(
		"ip link set eth0 address "+mac+" && ip addr add %s/24 dev eth0 && ip link set eth0 up && ip route add default via %s", d.Address, l.Gateway())))
}

// Cut takes the device's network away: the bridge's end of its cable goes down.
func (l *Lab) Cut(ctx context.Context, d *Device) error {
	return runCommand(l.inBridge(ctx, "ip link set "+d.port+" down"))
}

// Restore undoes Cut.
func (l *Lab) Restore(ctx context.Context, d *Device) error {
	return runCommand(l.inBridge(ctx, "ip link set "+d.port+" up"))
}

func (l *Lab) inBridge(ctx context.Context, script string) *exec.Cmd {
	return l.net.command(ctx, "sh", "-c", script)
}

// Dial connects as a process on the device does. The address must be an IP address and port.
func (l *Lab) Dial(ctx context.Context, d *Device, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("lab: dial: %w", err)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := dialIn(ctx, d, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialIn enters the device's network with the present thread, dials, and comes back. A thread that cannot come back stays
// locked and ends with its goroutine, for the sake of the others; only then, as what it started would be killed with it.
func dialIn(ctx context.Context, d *Device, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("lab: remember this machine's network: %w", err)
	}
	defer func() { _ = unix.Close(home) }()
	defer func() {
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	away, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", d.Init()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: enter the network of %s: %w", d.Name, err)
	}
	defer func() { _ = unix.Close(away) }()
	if err := unix.Setns(away, unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("lab: enter the network of %s: %w", d.Name, err)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// removeLink removes a link of this machine if it is there.
func removeLink(name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil
	}
	// The namespace at the other end may be going, and the link with it.
	if err := run(context.Background(), "ip", "link", "del", name); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
		return err
	}
	return nil
}
