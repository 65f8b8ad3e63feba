package transporttest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Relay is a slow way to a server: what is sent arrives later, and no faster than the way is wide, in each direction.
type Relay struct {
	// Address is what a device dials.
	Address string

	server   string
	delay    time.Duration // one way
	rate     float64       // bytes a second
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// relayQueue is how many pieces are on their way in one direction; whoever sends more waits, as with a full buffer.
const relayQueue = 64

// NewRelay makes a way to a server until the end of the test.
func NewRelay(t testing.TB, server string, delay time.Duration, rate float64) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Address: l.Addr().String(), server: server, delay: delay, rate: rate, listener: l, conns: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		_ = l.Close()
		r.Break()
		r.wg.Wait()
	})
	return r
}

// Break ends all connections.
func (r *Relay) Break() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		_ = conn.Close()
		delete(r.conns, conn)
	}
}

// keep remembers a connection, unless the relay is over.
func (r *Relay) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = conn.Close()
		return false
	}
	r.conns[conn] = true
	return true
}

func (r *Relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.server)
		if err != nil {
			_ = near.Close()
			continue
		}
		if r.keep(near) && r.keep(far) {
			r.wg.Go(func() { r.carry(far, near) })
			r.wg.Go(func() { r.carry(near, far) })
		}
	}
}

// piece is what arrives at once.
type piece struct {
	data []byte
	at   time.Time
}

// carry moves what comes from one end to the other, and ends with either.
func (r *Relay) carry(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	pieces := make(chan piece, relayQueue)
	r.wg.Go(func() {
		defer close(pieces)
		free := time.Now() // when the way is free for the next piece
		for {
			data := make([]byte, 512)
			n, err := from.Read(data)
			if n > 0 {
				if now := time.Now(); free.Before(now) {
					free = now
				}
				free = free.Add(time.Duration(float64(n) / r.rate * float64(time.Second)))
				pieces <- piece{data[:n], free.Add(r.delay)}
			}
			if err != nil {
				return
			}
		}
	})
	for p := range pieces {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.data); err != nil {
			_ = from.Close() // and what is still on its way is lost
			for range pieces {
			}
			return
		}
	}
}
