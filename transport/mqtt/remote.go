package mqtt

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/transport"
)

// RemoteConfig is what a server needs of a broker that stands elsewhere.
type RemoteConfig struct {
	// Address is the broker's host:port; Principal is the name in this server's certificate.
	Address, Principal string
	// Dial returns a TLS connection with a finished handshake, the broker's certificate checked.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Acceptor takes the links of the devices there.
	Acceptor transport.Acceptor
	// Joined is called whenever the server has joined the broker. May be nil.
	Joined func()
}

// joinPause is how long a server waits before it tries a broker again, at most; a third of it at least.
const joinPause = 3 * time.Second

// Join serves devices at a broker that stands elsewhere, until ctx ends. Only the server that leads does so.
func (s *Server) Join(ctx context.Context, cfg RemoteConfig) error {
	for ctx.Err() == nil {
		err := s.joinOnce(ctx, cfg)
		if ctx.Err() != nil {
			break
		}
		s.cfg.Logger.Warn("no link to the MQTT broker", "broker", cfg.Address, "error", err)
		select {
		case <-time.After(joinPause/3 + rand.N(2*joinPause/3)):
		case <-ctx.Done():
		}
	}
	return nil
}

// remote is the connection to such a broker.
type remote struct {
	server  *Server
	cfg     RemoteConfig
	broker  *broker
	ready   chan struct{}  // closed once broker is set
	running sync.WaitGroup // sessions

	mu    sync.Mutex
	links map[string]*uplink // by principal
}

func (s *Server) joinOnce(ctx context.Context, cfg RemoteConfig) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &remote{server: s, cfg: cfg, ready: make(chan struct{}), links: make(map[string]*uplink)}
	dialling, stop := context.WithTimeout(ctx, brokerTime)
	defer stop()
	var err error
	r.broker, err = dialBroker(dialling, brokerConfig{
		principal: cfg.Principal, address: cfg.Address, dial: cfg.Dial, subscribe: allUp,
		take: func(topic string, frame []byte) { r.take(ctx, topic, frame) },
		lost: func(err error) { cancel(fmt.Errorf("mqtt: the broker is gone: %w", err)) },
	})
	if err != nil {
		return err
	}
	close(r.ready)
	defer r.broker.close()
	if cfg.Joined != nil {
		cfg.Joined()
	}
	s.cfg.Logger.Info("serving devices at an MQTT broker", "broker", cfg.Address)
	<-ctx.Done()
	err = context.Cause(ctx)
	r.mu.Lock()
	links := r.links
	r.links = nil
	r.mu.Unlock()
	for _, up := range links {
		up.end(err)
	}
	r.running.Wait()
	return err
}

func (r *remote) take(ctx context.Context, topic string, frame []byte) {
	select {
	case <-r.ready:
	case <-ctx.Done():
		return
	}
	principal, ok := sender(topic)
	if !ok {
		return
	}
	r.mu.Lock()
	up := r.links[principal]
	if up == nil && r.links != nil && len(r.links) < maxUplinks {
		up = r.uplink(principal)
		r.links[principal] = up
	}
	r.mu.Unlock()
	if up != nil {
		up.receive(ctx, frame)
	}
}

func (r *remote) uplink(principal string) *uplink {
	topic := downTopic(principal)
	write := func(frame []byte) error { return r.broker.publish(topic, frame) }
	return &uplink{
		server: r.server, running: &r.running, acceptor: r.cfg.Acceptor, principal: principal, write: write,
		cut: func(session uint32) {
			// The connection is the broker's business; the device is told that its session is over.
			r.running.Go(func() { _ = write(resetFrame(session)) })
		},
	}
}
