package grpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/linkpb"
)

// ClientConfig configures a Client. All fields but Beat are required.
type ClientConfig struct {
	// Device is this device's name, for the addresses of tunnels; its certificate is what counts.
	Device string
	// Servers are host:port addresses, asked in this order.
	Servers []string
	// Dial returns a TLS connection with a finished handshake, the server's certificate checked.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Beat is the heartbeat of links by this carrier. Zero: that of the link's configuration.
	Beat time.Duration
}

// Client is the device's end of the carrier.
type Client struct {
	cfg    ClientConfig
	finder transport.Finder
}

// NewClient returns a carrier.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{cfg: cfg}
	c.finder.SetServers(cfg.Servers)
	return c
}

// Name implements transport.Carrier.
func (c *Client) Name() string { return "grpc" }

// Beat is the heartbeat of links by this carrier.
func (c *Client) Beat() time.Duration { return c.cfg.Beat }

// SetServers replaces the list of servers.
func (c *Client) SetServers(servers []string) { c.finder.SetServers(servers) }

// Connect implements transport.Carrier.
func (c *Client) Connect(ctx context.Context) (transport.Conn, error) {
	conn, err := c.finder.Connect(ctx, c.open)
	if err != nil {
		return nil, fmt.Errorf("grpc: %w", err)
	}
	return conn, nil
}

// open starts a mailbox stream that lives until it is closed, on a connection of its own.
func (c *Client) open(ctx context.Context, address string) (transport.Conn, error) {
	conn := &clientConn{client: c, address: address}
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(handshaken{}),
		grpc.WithContextDialer(conn.dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithReadBufferSize(bufferBytes),
		grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithMaxHeaderListSize(8<<10),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0),
	)
	if err != nil {
		return nil, err
	}
	conn.cc = cc
	var alive context.Context
	alive, conn.cancel = context.WithCancel(context.WithoutCancel(ctx))
	release := context.AfterFunc(ctx, conn.cancel)
	conn.stream, err = linkpb.NewLinkClient(cc).Mailbox(alive)
	if err != nil || !release() {
		_ = conn.Close()
		return nil, conn.reason(errors.Join(err, ctx.Err()))
	}
	return conn, nil
}

// clientConn is a mailbox at the device's end.
type clientConn struct {
	client  *Client
	address string
	cc      *grpc.ClientConn
	stream  grpc.BidiStreamingClient[linkpb.Envelope, linkpb.Envelope]
	cancel  context.CancelFunc

	mu      sync.Mutex
	dialErr error
	conn    net.Conn
}

func (c *clientConn) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := c.client.cfg.Dial(ctx, c.address)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialErr, c.conn = err, conn
	return conn, err
}

// reason is the dialler's own error, if that is what gRPC reports in many words.
func (c *clientConn) reason(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dialErr != nil {
		return c.dialErr
	}
	return err
}

func (c *clientConn) Send(e *linkpb.Envelope) error { return c.stream.Send(e) }

func (c *clientConn) Recv() (*linkpb.Envelope, error) {
	e, err := c.stream.Recv()
	if err != nil {
		return nil, c.reason(err)
	}
	return e, nil
}

// Frames grows with what comes in, tunnels' bytes too.
func (c *clientConn) Frames() uint64 {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	return transport.Received(conn)
}

// OpenTunnel implements transport.Conn. The tunnel lives on the mailbox's connection.
func (c *clientConn) OpenTunnel(ctx context.Context, id string) (net.Conn, error) {
	alive, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), tunnelKey, id))
	release := context.AfterFunc(ctx, cancel)
	stream, err := linkpb.NewLinkClient(c.cc).Tunnel(alive)
	if err != nil || !release() {
		cancel()
		return nil, fmt.Errorf("grpc: open a tunnel: %w", errors.Join(err, ctx.Err()))
	}
	return transport.NewTunnel(stream, c.client.cfg.Device, "control-plane", func() { _ = stream.CloseSend() }, cancel), nil
}

// Close ends the mailbox and its connection.
func (c *clientConn) Close() error {
	c.cancel()
	return c.cc.Close()
}
