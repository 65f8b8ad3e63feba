package streaming

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// answerTimeout is how long a device may take to begin, the container runtime on it included.
const answerTimeout = 30 * time.Second

// ask sends a request to the device and returns the beginning of its answer. The connection is the caller's to close.
func (b *Backend) ask(ctx context.Context, method string, header http.Header) (net.Conn, *http.Response, error) {
	conn, err := b.Dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	late := time.AfterFunc(answerTimeout, func() { _ = conn.Close() })
	defer late.Stop()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r, err := http.NewRequestWithContext(ctx, method, "http://device"+b.Target, nil)
	if err == nil {
		r.Header = header
		err = r.Write(conn)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, unreachable(err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, r)
	if err != nil {
		_ = conn.Close()
		return nil, nil, unreachable(err)
	}
	return &readAhead{Conn: conn, reader: reader}, answer, nil
}

// readAhead is a connection of which something was read already.
type readAhead struct {
	net.Conn
	reader *bufio.Reader
}

func (c *readAhead) Read(p []byte) (int, error) { return c.reader.Read(p) }

// upgrade asks the device to speak SPDY, in one of the protocols. Without a connection the answer, if there is one, says why not.
func (b *Backend) upgrade(ctx context.Context, protocols ...string) (net.Conn, *http.Response, error) {
	conn, answer, err := b.ask(ctx, http.MethodPost, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": protocols,
	})
	if err != nil {
		return nil, nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		answer.Body = closeBoth{answer.Body, conn}
		return nil, answer, nil
	}
	return conn, answer, nil
}

// closeBoth is a body that ends its connection.
type closeBoth struct {
	io.ReadCloser
	conn net.Conn
}

func (c closeBoth) Close() error {
	_ = c.ReadCloser.Close()
	return c.conn.Close()
}
