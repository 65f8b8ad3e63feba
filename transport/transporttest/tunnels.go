package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

// testTunnelEcho sends megabytes through several tunnels at once and ends each with a half-close.
func testTunnelEcho(b *bench) {
	address, _, hub := b.leader(1)
	b.device("a", address)
	b.eventually("the link", func() bool { return b.owner.Up("a") == 1 })
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			conn, err := hub.Dial(b.t.Context(), "a")
			if err != nil {
				b.t.Error(err)
				return
			}
			defer conn.Close()
			data := make([]byte, 3<<20+i)
			random := rand.NewChaCha8([32]byte{byte(i)})
			random.Read(data)
			group.Go(func() {
				if _, err := conn.Write(data); err != nil {
					b.t.Errorf("write: %v", err)
				}
				if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					b.t.Errorf("half-close: %v", err)
				}
			})
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, data) {
				b.t.Errorf("tunnel %d: %d of %d bytes came back, error %v", i, len(got), len(data), err)
			}
		})
	}
	group.Wait()
}

// testTunnelHTTP has net/http on both ends, as logs and exec have it.
func testTunnelHTTP(b *bench) {
	address, _, hub := b.leader(1)
	device := NewDevice()
	conns := make(chan net.Conn)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for range 100 {
			fmt.Fprintf(w, "%s %s\n", r.URL.Path, body)
			w.(http.Flusher).Flush()
		}
	})}
	go server.Serve(&oneByOne{conns: conns})
	b.t.Cleanup(func() { server.Close() })
	device.Serve = func(ctx context.Context, conn net.Conn) {
		conns <- conn
		<-conn.(interface{ Closed() <-chan struct{} }).Closed()
	}
	b.link("a", device, address)
	b.eventually("the link", func() bool { return b.owner.Up("a") == 1 })
	client := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return hub.Dial(ctx, "a") }}
	b.t.Cleanup(client.CloseIdleConnections)
	for i := range 3 {
		request, _ := http.NewRequestWithContext(b.t.Context(), "POST", "http://a/logs", bytes.NewReader([]byte("hello")))
		response, err := client.RoundTrip(request)
		if err != nil {
			b.t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if want := bytes.Repeat([]byte("/logs hello\n"), 100); err != nil || !bytes.Equal(body, want) {
			b.t.Fatalf("request %d: %d bytes, error %v", i, len(body), err)
		}
	}
}

// oneByOne is a listener of connections that come through a channel.
type oneByOne struct{ conns chan net.Conn }

func (l *oneByOne) Accept() (net.Conn, error) {
	conn, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *oneByOne) Close() error {
	close(l.conns)
	return nil
}

func (l *oneByOne) Addr() net.Addr { return &net.UnixAddr{Name: "tunnels"} }

func testTunnelDeadlines(b *bench) {
	address, _, hub := b.leader(1)
	device, _ := b.device("a", address)
	_ = device
	b.eventually("the link", func() bool { return b.owner.Up("a") == 1 })
	conn, err := hub.Dial(b.t.Context(), "a")
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	buffer := make([]byte, 16)
	conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := conn.Read(buffer); !errors.Is(err, os.ErrDeadlineExceeded) {
		b.t.Fatalf("read past the deadline: %v", err)
	}
	// A read that waits is woken by a deadline that is set meanwhile, and nothing is lost by it.
	conn.SetReadDeadline(time.Time{})
	woken := make(chan error)
	go func() {
		_, err := conn.Read(buffer)
		woken <- err
	}()
	conn.SetReadDeadline(time.Unix(1, 0))
	if err := <-woken; !errors.Is(err, os.ErrDeadlineExceeded) {
		b.t.Fatalf("woken read: %v", err)
	}
	conn.SetDeadline(time.Time{})
	if _, err := conn.Write([]byte("ping")); err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, buffer[:4]); err != nil || string(buffer[:4]) != "ping" {
		b.t.Fatalf("read %q, %v", buffer[:4], err)
	}
	conn.SetWriteDeadline(time.Unix(1, 0))
	if _, err := conn.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
		b.t.Fatalf("write past the deadline: %v", err)
	}
}

// testTunnelCut cuts the link under a tunnel: both ends learn of it.
func testTunnelCut(b *bench) {
	address, _, hub := b.leader(1)
	device := NewDevice()
	ended := make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	device.Serve = func(_ context.Context, conn net.Conn) {
		io.Copy(conn, conn)
		end()
	}
	b.link("a", device, address)
	b.eventually("the link", func() bool { return b.owner.Up("a") == 1 })
	conn, err := hub.Dial(b.t.Context(), "a")
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		b.t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		b.t.Fatal(err)
	}
	b.lab.Break("a")
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		b.t.Fatal("a read from a cut tunnel succeeded")
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		b.t.Fatal("the device goes on serving a cut tunnel")
	}
	b.eventually("a tunnel over the new link", func() bool {
		again, err := hub.Dial(b.t.Context(), "a")
		if err != nil {
			return false
		}
		again.Close()
		return true
	})
}

func testTunnelStrangers(b *bench) {
	address, _, hub := b.leader(1)
	if _, err := hub.Dial(b.t.Context(), "nobody"); !errors.Is(err, transport.ErrNotConnected) {
		b.t.Fatalf("dial a device that is not there: %v", err)
	}
	conn, err := b.lab.Carrier(b.t, "a", address).Connect(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	tunnel, err := conn.OpenTunnel(b.t.Context(), "made-up")
	if err == nil { // some carriers learn of the refusal with the first read
		_, err = tunnel.Read(make([]byte, 1))
		tunnel.Close()
	}
	if err == nil {
		b.t.Fatal("a tunnel that nobody asked for was opened")
	}
}
