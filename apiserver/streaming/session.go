package streaming

import (
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/moby/spdystream"
)

// session is the client's side of SPDY on a connection to a device.
type session struct {
	conn  net.Conn
	spdy  *spdystream.Connection
	ended chan struct{} // closed when nothing is received any more

	mu      sync.Mutex
	streams []*spdystream.Stream
}

func newSession(conn net.Conn) (*session, error) {
	c, err := spdystream.NewConnection(conn, false)
	if err != nil {
		return nil, fmt.Errorf("SPDY: %w", err)
	}
	s := &session{conn: conn, spdy: c, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		c.Serve(spdystream.NoOpStreamHandler)
	}()
	return s, nil
}

// stream opens a stream of a type, with more headers.
func (s *session) stream(kind string, more http.Header) (*spdystream.Stream, error) {
	header := http.Header{"streamType": {kind}}
	for name, values := range more {
		header[name] = values
	}
	stream, err := s.spdy.CreateStream(header, nil, false)
	if err != nil {
		return nil, fmt.Errorf("open the stream %s: %w", kind, err)
	}
	s.mu.Lock()
	s.streams = append(s.streams, stream)
	s.mu.Unlock()
	if err := stream.WaitTimeout(answerTimeout); err != nil {
		return nil, fmt.Errorf("open the stream %s: %w", kind, err)
	}
	return stream, nil
}

// close ends the connection and everything that waits for one of its streams.
func (s *session) close() {
	_ = s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stream := range s.streams {
		_ = stream.Reset() // what nobody reads any more must not hold up the rest
	}
}

// wait returns when a closed session has let go of everything.
func (s *session) wait() { <-s.ended }
