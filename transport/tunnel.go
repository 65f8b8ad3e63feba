package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-edge/shoal/transport/linkpb"
)

// ChunkStream is what a carrier makes a tunnel of. An empty chunk ends the sender's direction.
type ChunkStream interface {
	Send(*linkpb.Chunk) error
	Recv() (*linkpb.Chunk, error)
}

// Tunnel is a net.Conn over a stream of chunks, with half-close. A read deadline may pass and be set anew, as http.Server
// needs; a write deadline that passes during a write ends the tunnel.
type Tunnel struct {
	stream        ChunkStream
	finish, abort func()
	local, remote tunnelAddr
	counted       func(up bool, n int) // what was read and written; nil: nobody counts
	pace          *rate.Limiter        // of what is written, in bytes; nil: as fast as it goes

	incoming chan []byte   // from pump to Read; closed after readErr is set
	over     chan struct{} // closed when the stream is over
	readErr  error
	readMu   sync.Mutex
	rest     []byte
	reading  *deadline

	closed  chan struct{}
	closing sync.Once

	writeMu   sync.Mutex
	writeDone bool
	busy      atomic.Bool
	writing   *deadline
}

const (
	chunkBytes = 32 << 10
	// linger is how long a closed tunnel waits for the peer to take what was sent last.
	linger = 10 * time.Second
)

// NewTunnel makes a connection of a stream. finish is called once, after the last Send, and says that no more follows;
// abort makes Send and Recv return at once, and may be called often.
func NewTunnel(stream ChunkStream, local, remote string, finish, abort func()) *Tunnel {
	t := &Tunnel{
		stream: stream, finish: finish, abort: abort, local: tunnelAddr(local), remote: tunnelAddr(remote),
		incoming: make(chan []byte), over: make(chan struct{}), closed: make(chan struct{}),
	}
	t.reading = newDeadline(func() {})
	t.writing = newDeadline(func() {
		if t.busy.Load() {
			t.abort()
		}
	})
	go t.pump()
	return t
}

// note has the control plane's end count. It is called before anybody reads or writes.
func (t *Tunnel) note(counted func(up bool, n int)) { t.counted = counted }

// pump moves chunks from the stream to Read until the stream is over: at the latest linger after Close.
func (t *Tunnel) pump() {
	defer close(t.over)
	open := true
	for {
		chunk, err := t.stream.Recv()
		if open && (err != nil || len(chunk.Data) == 0) {
			open = false
			if t.readErr = io.EOF; err != nil && !errors.Is(err, io.EOF) {
				t.readErr = fmt.Errorf("tunnel: %w", err)
			}
			close(t.incoming)
		}
		if err != nil {
			return
		}
		if open {
			select {
			case t.incoming <- chunk.Data:
			case <-t.closed:
			}
		}
	}
}

func (t *Tunnel) Read(p []byte) (int, error) {
	t.readMu.Lock()
	defer t.readMu.Unlock()
	expired := t.reading.passed()
	switch {
	case isClosed(t.closed):
		return 0, net.ErrClosed
	case isClosed(expired):
		return 0, os.ErrDeadlineExceeded
	case len(p) == 0:
		return 0, nil
	}
	if len(t.rest) == 0 {
		select {
		case data, ok := <-t.incoming:
			if !ok {
				return 0, t.readErr
			}
			t.rest = data
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		case <-t.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	if t.counted != nil {
		t.counted(true, n)
	}
	return n, nil
}

func (t *Tunnel) Write(p []byte) (int, error) {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	t.busy.Store(true)
	defer t.busy.Store(false)
	sent := 0
	for sent < len(p) {
		switch {
		case isClosed(t.closed) || t.writeDone:
			return sent, net.ErrClosed
		case isClosed(t.writing.passed()):
			return sent, os.ErrDeadlineExceeded
		}
		n := min(len(p)-sent, chunkBytes)
		if t.pace != nil {
			n = min(n, t.pace.Burst())
			if err := t.wait(n); err != nil {
				return sent, err
			}
		}
		if err := t.stream.Send(&linkpb.Chunk{Data: p[sent : sent+n]}); err != nil {
			if isClosed(t.writing.passed()) {
				return sent, os.ErrDeadlineExceeded
			}
			return sent, fmt.Errorf("tunnel: %w", err)
		}
		sent += n
		if t.counted != nil {
			t.counted(false, n)
		}
	}
	return sent, nil
}

// wait holds a write back until the pace allows it, the tunnel is closed or the deadline passes.
func (t *Tunnel) wait(n int) error {
	turn := t.pace.ReserveN(time.Now(), n)
	timer := time.NewTimer(turn.Delay())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.closed:
		turn.Cancel()
		return net.ErrClosed
	case <-t.writing.passed():
		turn.Cancel()
		return os.ErrDeadlineExceeded
	}
}

// CloseWrite ends this end's direction; the peer reads to the end and may go on writing.
func (t *Tunnel) CloseWrite() error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	if t.writeDone || isClosed(t.closed) {
		return net.ErrClosed
	}
	t.writeDone = true
	return t.stream.Send(&linkpb.Chunk{})
}

// Close ends the tunnel. What was written before still reaches a peer that reads on.
func (t *Tunnel) Close() error {
	t.closing.Do(func() {
		close(t.closed)
		go func() {
			timer := time.AfterFunc(linger, t.abort)
			defer timer.Stop()
			t.writeMu.Lock()
			t.finish()
			t.writeMu.Unlock()
			<-t.over
			t.abort()
		}()
	})
	return nil
}

// Closed is closed when this end has closed the tunnel.
func (t *Tunnel) Closed() <-chan struct{} { return t.closed }

func (t *Tunnel) LocalAddr() net.Addr  { return t.local }
func (t *Tunnel) RemoteAddr() net.Addr { return t.remote }

func (t *Tunnel) SetDeadline(at time.Time) error {
	t.reading.set(at)
	t.writing.set(at)
	return nil
}

func (t *Tunnel) SetReadDeadline(at time.Time) error {
	t.reading.set(at)
	return nil
}

func (t *Tunnel) SetWriteDeadline(at time.Time) error {
	t.writing.set(at)
	return nil
}

// tunnelAddr is a tunnel's address: the name of the device or of the control plane.
type tunnelAddr string

func (tunnelAddr) Network() string  { return "shoal-tunnel" }
func (a tunnelAddr) String() string { return string(a) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
