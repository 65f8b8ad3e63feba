package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/moby/spdystream"
)

// DialPort connects to a port of the pod whose port-forward the backend is.
func (b *Backend) DialPort(ctx context.Context, port uint16) (net.Conn, error) {
	conn, answer, err := b.upgrade(ctx, portForward)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		defer func() { _ = answer.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(answer.Body, maxRefusal)) // what came of it is all there is to tell
		return nil, fmt.Errorf("%s: %s", answer.Status, text)
	}
	session, err := newSession(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := &portConn{Conn: conn, session: session, why: make(chan string, 1)}
	if err := c.open(port); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// portConn is a connection to a port of a pod, as two SPDY streams.
type portConn struct {
	net.Conn // the one that the streams are on
	session  *session
	data     *spdystream.Stream
	why      chan string // why the port could not be reached; empty if it could
	close    sync.Once
}

func (c *portConn) open(port uint16) error {
	head := http.Header{"port": {strconv.Itoa(int(port))}, "requestID": {"0"}}
	failure, err := c.session.stream("error", head)
	if err != nil {
		return err
	}
	_ = failure.Close() // we only read it
	go func() {         // it ends with the session
		text, _ := io.ReadAll(io.LimitReader(failure, maxRefusal)) // what came of it is all there is to tell
		c.why <- string(text)
		close(c.why)
	}()
	c.data, err = c.session.stream("data", head)
	return err
}

// farewell is how long after the end of the data a device may take to say why it ended: that comes on a stream of its own.
const farewell = time.Second

// Read tells at the end why the port could not be reached, if that is why nothing came.
func (c *portConn) Read(p []byte) (int, error) {
	n, err := c.data.Read(p)
	if errors.Is(err, io.EOF) {
		select {
		case why := <-c.why:
			if why != "" {
				err = errors.New(why)
			}
		case <-time.After(farewell):
		}
	}
	return n, err
}

func (c *portConn) Write(p []byte) (int, error) { return c.data.Write(p) }

// Close ends the session, which is this connection's alone.
func (c *portConn) Close() error {
	c.close.Do(c.session.close)
	return nil
}
