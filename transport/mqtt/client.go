package mqtt

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

// An open that nobody has answered is sent again, after a pause that doubles: at a broker that stands elsewhere, the leader
// may not be there yet.
const (
	firstOffer = 500 * time.Millisecond
	lastOffer  = 5 * time.Second
	// answerTime is how long the device waits for an answer before it tries another connection or broker: this one may have
	// lost its subscription, or have no leader.
	answerTime = 10 * time.Second
)

// ClientConfig configures a Client. All fields but Beat are required.
type ClientConfig struct {
	// Device is this device's name; Principal is the whole name in its certificate, which is also its MQTT client identifier,
	// its user name, and in its topics.
	Device, Principal string
	// Servers are the host:port addresses of servers, or of brokers, asked in this order.
	Servers []string
	// Fixed says that Servers are brokers, which stay whatever becomes of the servers.
	Fixed bool
	// Dial returns a TLS connection with a finished handshake, the broker's certificate checked.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Keys are this device's, and know servers.
	Keys Keys
	// Beat is the heartbeat of links by this carrier. Zero: that of the link's configuration.
	Beat   time.Duration
	Logger *slog.Logger
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
func (c *Client) Name() string { return "mqtt" }

// Beat is the heartbeat of links by this carrier.
func (c *Client) Beat() time.Duration { return c.cfg.Beat }

// SetServers replaces the list of servers.
func (c *Client) SetServers(servers []string) {
	if !c.cfg.Fixed {
		c.finder.SetServers(servers)
	}
}

// Connect implements transport.Carrier.
func (c *Client) Connect(ctx context.Context) (transport.Conn, error) {
	conn, err := c.finder.Connect(ctx, c.open)
	if err != nil {
		return nil, fmt.Errorf("mqtt: %w", err)
	}
	return conn, nil
}

// open starts a session at one broker.
func (c *Client) open(ctx context.Context, address string) (transport.Conn, error) {
	conn := &clientConn{client: c, accepted: make(chan []byte, 1), lost: make(chan struct{})}
	rand.Read(conn.name[:]) // never fails
	var err error
	conn.broker, err = dialBroker(ctx, brokerConfig{
		principal: c.cfg.Principal, address: address, dial: c.cfg.Dial, subscribe: downTopic(c.cfg.Principal),
		will: will{topic: upTopic(c.cfg.Principal), payload: goneFrame(conn.name)},
		take: func(_ string, frame []byte) { conn.take(frame) }, lost: conn.broken,
	})
	if err != nil {
		return nil, err
	}
	if err := conn.begin(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// clientConn is a session at the device's end.
type clientConn struct {
	*session
	client   *Client
	name     [connSize]byte
	broker   *broker
	accepted chan []byte   // holds one
	lost     chan struct{} // closed when the broker is gone
	losing   sync.Once

	mu      sync.Mutex
	started *session // nil until it is
}

// begin shakes hands with the server that leads.
func (c *clientConn) begin(ctx context.Context) error {
	cfg := c.client.cfg
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	offer, err := newOffer(c.name, cfg.Principal, cfg.Keys)
	if err != nil {
		return err
	}
	for pause := firstOffer; ; pause = min(2*pause, lastOffer) {
		if err := c.write(offer.frame); err != nil {
			return err
		}
		select {
		case frame := <-c.accepted:
			id, out, in, err := offer.take(frame, cfg.Keys)
			if err != nil {
				cfg.Logger.Warn("refused a server's answer over MQTT", "error", err)
				continue // it was not meant for this session, or not made by a server
			}
			return c.start(id, out, in)
		case <-time.After(pause):
		case <-c.lost:
			return errors.New("the broker closed the connection")
		case <-ctx.Done():
			return fmt.Errorf("no server answers at this broker: %w", ctx.Err())
		}
	}
}

func (c *clientConn) start(id uint32, out, in *seal) error {
	s := startSession(id, out, in, c.write, c.broker.close)
	c.mu.Lock()
	c.session, c.started = s, s
	c.mu.Unlock()
	if isClosed(c.lost) {
		return errOver
	}
	return s.send(message{kind: msgReady})
}

func (c *clientConn) write(frame []byte) error {
	return c.broker.publish(upTopic(c.client.cfg.Principal), frame)
}

// take takes what the broker brings.
func (c *clientConn) take(frame []byte) {
	if len(frame) == 0 || len(frame) > maxFrame {
		return
	}
	c.mu.Lock()
	s := c.started
	c.mu.Unlock()
	switch frame[0] {
	case frameAccept:
		if s == nil {
			select {
			case c.accepted <- frame:
			default:
			}
		}
	case frameSealed:
		if s != nil {
			if err := s.deliver(frame); err != nil {
				c.client.cfg.Logger.Warn("refused a frame over MQTT", "error", err)
			}
		}
	case frameReset:
		if id, ok := parseReset(frame); ok && s != nil && id == s.id {
			s.fail(errors.New("mqtt: the server knows this session no more"))
		}
	}
}

// broken notes that the broker is gone.
func (c *clientConn) broken(err error) {
	c.losing.Do(func() { close(c.lost) })
	c.mu.Lock()
	s := c.started
	c.mu.Unlock()
	if s != nil {
		s.fail(fmt.Errorf("mqtt: the broker is gone: %w", err))
	}
}

// OpenTunnel implements transport.Conn.
func (c *clientConn) OpenTunnel(_ context.Context, id string) (net.Conn, error) {
	t, err := c.dial(id)
	if err != nil {
		return nil, err
	}
	return transport.NewTunnel(t, c.client.cfg.Device, "control-plane", t.finish, t.abort), nil
}

// Close ends the session and its connection.
func (c *clientConn) Close() error {
	c.mu.Lock()
	s := c.started
	c.mu.Unlock()
	if s != nil {
		s.fail(errOver)
	}
	c.broker.close()
	return nil
}
