package pki

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged is how long what was sent may stay without an answer of the peer's kernel before the connection counts as
// dead. It finds half-open connections without a byte more on the wire: heartbeats are enough.
const unacknowledged = 20 * time.Second

// unsent is how much of what was written may wait in the kernel beside what is on its way, in bytes: a heartbeat must not
// wait behind megabytes of a log.
const unsent = 32 << 10

// Probing is how a connection finds out that its peer is gone.
type Probing struct {
	// Idle is how long nothing may come before the kernel asks the peer's, again and again after Interval. Zero: it does not ask.
	Idle, Interval time.Duration
	// Patience is how long what was sent, or asked, may stay without an answer. Zero: 20s.
	Patience time.Duration
}

// newDialer returns a dialer whose connections find out that their peer is gone.
func newDialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return tune(raw, unacknowledged) }}
}

// newProbingDialer likewise, as told, and for links, where some messages must not wait behind others.
func newProbingDialer(p Probing) *net.Dialer {
	if p.Patience == 0 {
		p.Patience = unacknowledged
	}
	d := &net.Dialer{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		return errors.Join(tune(raw, p.Patience), set(raw, unix.TCP_NOTSENT_LOWAT, unsent))
	}}
	if p.Idle > 0 {
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: p.Idle, Interval: p.Interval, Count: 20}
	}
	return d
}

func tune(raw syscall.RawConn, patience time.Duration) error {
	return set(raw, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds()))
}

func set(raw syscall.RawConn, option, value int) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value) })
	if err != nil {
		return err
	}
	return failed
}

// tuneConn does the same for a connection that was accepted. One that cannot be tuned is closed already, or works anyway.
func tuneConn(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = tune(raw, unacknowledged)
		}
	}
}

// quiet has a connection that was accepted say nothing by itself: its device asks, or has reasons not to.
func quiet(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAlive(false)
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = set(raw, unix.TCP_NOTSENT_LOWAT, unsent)
		}
	}
}
