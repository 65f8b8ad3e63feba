package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	// connectTime is how long a client has for its first packet.
	connectTime = 10 * time.Second
	// netBuffer keeps a thousand idle connections small, in bytes; a larger packet is read past it.
	netBuffer = 512
)

// embedded is the broker in this process. It hands what devices publish to their uplinks and writes to them what those
// send, so that no message waits in a queue that could overflow: a slow device slows down who sends to it.
//
// mochi's event loop is not started: it wakes up five times a second, for $SYS topics, delayed wills and sessions that outlive
// their connection, none of which there are here.
type embedded struct {
	mochi.HookBase
	server  *Server
	broker  *mochi.Server
	ctx     context.Context
	running sync.WaitGroup // sessions

	mu    sync.Mutex
	links map[*mochi.Client]*uplink
	names map[string]*mochi.Client
	conns map[net.Conn]bool
}

// Run serves the embedded broker on a listener whose connections are TLS with a finished handshake, until ctx ends.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limits := mochi.NewDefaultServerCapabilities()
	limits.MaximumClients = maxUplinks
	limits.MaximumClientWritesPending = 1 // nothing is queued: see embedded
	limits.MaximumPacketSize = maxPacket
	limits.MaximumQos, limits.RetainAvailable, limits.SharedSubAvailable, limits.WildcardSubAvailable = 0, 0, 0, 0
	limits.ReceiveMaximum, limits.MaximumInflight, limits.TopicAliasMaximum = 1, 1, 0
	limits.MinimumProtocolVersion = 4
	e := &embedded{
		server: s, ctx: ctx,
		broker: mochi.New(&mochi.Options{
			Capabilities: limits, ClientNetReadBufferSize: netBuffer, ClientNetWriteBufferSize: netBuffer,
			Logger: slog.New(slog.DiscardHandler), // it logs each packet of a client that fails; what matters is told here
		}),
		links: make(map[*mochi.Client]*uplink), names: make(map[string]*mochi.Client), conns: make(map[net.Conn]bool),
	}
	if err := e.broker.AddHook(e, nil); err != nil {
		return fmt.Errorf("mqtt: %w", err)
	}
	var clients sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		_ = listener.Close()
		e.cutAll()
	})
	defer func() {
		cancel()
		stop()
		e.cutAll()
		clients.Wait()
		e.running.Wait()
	}()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("mqtt: serve links: %w", err)
		}
		if !e.note(conn) {
			continue
		}
		clients.Go(func() {
			defer e.forget(conn)
			_ = conn.SetDeadline(time.Now().Add(connectTime)) // the broker moves it with each packet after the first
			if err := e.broker.EstablishConnection("shoal", conn); err != nil {
				s.cfg.Logger.Debug("an MQTT connection is over", "peer", conn.RemoteAddr(), "reason", err)
			}
		})
	}
}

func (e *embedded) note(conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		_ = conn.Close()
		return false
	}
	e.conns[conn] = true
	return true
}

func (e *embedded) forget(conn net.Conn) {
	cut(conn)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, conn)
}

func (e *embedded) cutAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn := range e.conns {
		cut(conn)
	}
}

// cut closes a connection without TLS's goodbye, which would wait for a peer that does not read.
func cut(conn net.Conn) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}

// ID implements mochi.Hook.
func (e *embedded) ID() string { return "shoal" }

// Provides implements mochi.Hook.
func (e *embedded) Provides(what byte) bool {
	switch what {
	case mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnSessionEstablished, mochi.OnPublish, mochi.OnDisconnect:
		return true
	}
	return false
}

// OnConnectAuthenticate lets devices in whose client identifier and user name are the name in their certificate.
func (e *embedded) OnConnectAuthenticate(cl *mochi.Client, pk packets.Packet) bool {
	secure, ok := cl.Net.Conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return false
	}
	state := secure.ConnectionState()
	if _, err := e.server.cfg.Device(state); err != nil {
		e.server.refuse("", RefusedName)
		return false
	}
	principal := state.PeerCertificates[0].Subject.CommonName
	if pk.Connect.ClientIdentifier != principal || string(pk.Connect.Username) != principal {
		e.server.refuse(principal, RefusedName)
		return false
	}
	e.mu.Lock()
	old := e.names[principal]
	e.names[principal] = cl
	e.mu.Unlock()
	if old != nil {
		cut(old.Net.Conn) // the broker would say goodbye to it first, which may take long on a dead connection
	}
	return true
}

// OnACLCheck allows a device its own two topics and nothing else.
func (e *embedded) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	own := downTopic(cl.ID)
	if write {
		own = upTopic(cl.ID)
	}
	if topic != own {
		e.server.refuse(cl.ID, RefusedTopic)
	}
	return topic == own
}

// OnSessionEstablished makes the client's uplink.
func (e *embedded) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	topic := downTopic(cl.ID)
	up := &uplink{
		server: e.server, running: &e.running, acceptor: e.server.cfg.Acceptor, principal: cl.ID,
		write: func(frame []byte) error {
			return cl.WritePacket(packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: topic, Payload: frame,
			})
		},
		cut:  func(uint32) { cut(cl.Net.Conn) },
		link: cl.Net.Conn,
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.links[cl] = up
}

// OnPublish hands a device's frame on. Nobody else gets it.
func (e *embedded) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	e.mu.Lock()
	up := e.links[cl]
	e.mu.Unlock()
	if up != nil {
		up.receive(e.ctx, pk.Payload)
	}
	return pk, packets.CodeSuccessIgnore
}

// OnDisconnect ends what went over the connection.
func (e *embedded) OnDisconnect(cl *mochi.Client, err error, _ bool) {
	e.mu.Lock()
	up := e.links[cl]
	delete(e.links, cl)
	if e.names[cl.ID] == cl {
		delete(e.names, cl.ID)
	}
	e.mu.Unlock()
	if up != nil {
		up.end(errors.Join(errGone, err))
	}
}
