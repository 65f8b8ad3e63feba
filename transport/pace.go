package transport

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// paced is a carrier that has a heartbeat of its own: how often the device says something on a quiet link. Between two the
// device's kernel may ask the peer's whether it is there, which costs less than a message and finds a dead path as well; it does not
// find a process that hangs.
type paced interface{ Beat() time.Duration }

const (
	// longBeat is the beat from which each one is answered. Of shorter ones every second is.
	longBeat = 15 * time.Second
	// answerTime is how long the answer to such a beat may take.
	answerTime = 20 * time.Second
)

// silence is how long the control plane may say nothing to a device with that heartbeat.
func silence(beat time.Duration) time.Duration {
	if beat < longBeat {
		return max(4*beat, time.Second)
	}
	return beat + answerTime
}

// seconds rounds up, so that nothing is promised that is not kept.
func seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }

// alive is a connection that can tell whether its peer's kernel is there.
type alive interface {
	// Segments is how many TCP segments have come in.
	Segments() (n uint32, ok bool)
}

// Segments counts the TCP segments that have come in on a connection, those without data too. A peer that is asked nothing and
// sends nothing adds none.
func Segments(conn net.Conn) (n uint32, ok bool) {
	info, err := tcpInfo(conn)
	if err != nil {
		return 0, false
	}
	return info.Segs_in, true
}

// Received counts the bytes that have come in on a connection; 0 if nobody knows. Bytes come from the peer's process.
func Received(conn net.Conn) uint64 {
	info, err := tcpInfo(conn)
	if err != nil {
		return 0
	}
	return info.Bytes_received
}

var errNotTCP = errors.New("the connection is not TCP")

func tcpInfo(conn net.Conn) (info *unix.TCPInfo, err error) {
	for range 4 { // TLS and what counts connections lie over TCP
		under, is := conn.(interface{ NetConn() net.Conn })
		if !is {
			break
		}
		conn = under.NetConn()
	}
	tcp, is := conn.(*net.TCPConn)
	if !is {
		return nil, errNotTCP
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return info, errors.Join(err, failed)
}
