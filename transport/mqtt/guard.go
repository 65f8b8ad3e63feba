package mqtt

import (
	"errors"
	"net"
)

var errPacket = errors.New("mqtt: the broker sends a packet that is larger than any may be")

// watched is a client's connection to a broker. It tells at once when the connection is over: the client library keeps silent
// about one that was closed on this side. And it believes no length: the library would make room for 256 MB before the first
// byte of a packet that says so has come.
type watched struct {
	net.Conn
	lost  func(error)
	guard guard
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err == nil && !w.guard.pass(p[:n]) {
		n, err = 0, errPacket
		cut(w.Conn)
	}
	if err != nil {
		w.lost(err)
	}
	return n, err
}

// guard follows a stream of MQTT packets by their fixed headers: a byte, then the length of the rest in up to four bytes of
// seven bits, the lowest first (MQTT 3.1.1, section 2.2.3).
type guard struct {
	rest   int // bytes of the present packet that have not come
	header int // bytes of the present header that have come
	length int
}

// pass tells whether all packets that begin in b are small enough.
func (g *guard) pass(b []byte) bool {
	for len(b) > 0 {
		if g.rest > 0 {
			n := min(g.rest, len(b))
			g.rest -= n
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		if g.header++; g.header == 1 {
			g.length = 0
			continue
		}
		g.length |= int(c&0x7f) << (7 * (g.header - 2))
		if g.length > maxPacket || g.header > 5 {
			return false
		}
		if c&0x80 == 0 {
			g.rest, g.header = g.length, 0
		}
	}
	return true
}
