package pki

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged is how long what was sent may stay without an answer of the peer's kernel before the connection counts as
// dead. It finds half-open connections without a byte more on the wire: heartbeats are enough.
const unacknowledged = 20 * time.Second

// newDialer returns a dialer whose connections find out that their peer is gone.
func newDialer() *net.Dialer {
	return &net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return tune(raw) }}
}

func tune(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}

// tuneConn does the same for a connection that was accepted. One that cannot be tuned is closed already, or works anyway.
func tuneConn(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = tune(raw)
		}
	}
}
