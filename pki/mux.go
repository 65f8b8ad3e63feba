package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// ALPN names of what a server's one port carries. Everything else is HTTP, for the API.
const (
	ProtoLink = "shoal-link/1" // devices' mailboxes and tunnels: node certificates
	ProtoRaft = "shoal-raft/1" // the control plane: server certificates
	ProtoJoin = "shoal-join/1" // devices that have no certificate yet: any self-signed one
	ProtoMQTT = "mqtt"         // devices' mailboxes over MQTT (the name is IANA's): node certificates
)

const (
	handshakeTimeout = 10 * time.Second
	// maxConns bounds the connections of one server; maxHandshakes those that have not said who they are, and maxHandshakesOfOne those from one
	// address, behind which may be a whole site.
	maxConns           = 16384
	maxHandshakes      = 256
	maxHandshakesOfOne = 128
)

// Mux accepts on one TCP port and hands each connection, its TLS handshake done and its certificate checked, to the listener
// of its protocol.
type Mux struct {
	tcp    net.Listener
	config *tls.Config
	logger *slog.Logger

	api, link, raft, join, mqtt *muxListener

	conns      chan struct{}
	handshakes *doorway
}

// NewMux makes a mux over a TCP listener. Run it to accept.
func NewMux(tcp net.Listener, id *Identity, logger *slog.Logger) *Mux {
	m := &Mux{
		tcp: tcp, logger: logger,
		conns:      make(chan struct{}, maxConns),
		handshakes: &doorway{from: map[string]int{}},
	}
	for _, l := range []**muxListener{&m.api, &m.link, &m.raft, &m.join, &m.mqtt} {
		*l = &muxListener{addr: tcp.Addr(), queue: make(chan net.Conn), done: make(chan struct{})}
	}
	m.config = id.serverConfig()
	return m
}

// API accepts HTTP connections; the client's certificate, if it sent one, is verified.
func (m *Mux) API() net.Listener { return m.api }

// Link accepts devices.
func (m *Mux) Link() net.Listener { return m.link }

// MQTT accepts devices that speak MQTT.
func (m *Mux) MQTT() net.Listener { return m.mqtt }

// Raft accepts other servers.
func (m *Mux) Raft() net.Listener { return m.raft }

// Join accepts HTTP connections of devices that want to join.
func (m *Mux) Join() net.Listener { return m.join }

// serverConfig picks, by the protocol that the client offers, which certificates it must show.
func (id *Identity) serverConfig() *tls.Config {
	with := func(auth tls.ClientAuthType, check func(*x509.Certificate) bool, protos ...string) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13,
			NextProtos: protos,
			ClientAuth: auth,
			ClientCAs:  id.roots,
			Time:       aFixedTime,
			// Tickets live by the clock too. A new handshake is cheap, and a device keeps its connection.
			SessionTicketsDisabled: true,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return id.cert.Load(), nil
			},
			VerifyConnection: func(state tls.ConnectionState) error {
				if len(state.VerifiedChains) == 0 { // none was given, or any will do
					return nil
				}
				leaf := state.PeerCertificates[0]
				if check != nil && !check(leaf) {
					return fmt.Errorf("the certificate of %q does not admit to this protocol", leaf.Subject.CommonName)
				}
				return expired(leaf)
			},
		}
	}
	isNode := func(c *x509.Certificate) bool { _, ok := NodeName(c); return ok }
	isServer := func(c *x509.Certificate) bool { _, ok := ServerName(c); return ok }
	api := with(tls.VerifyClientCertIfGiven, nil, "h2", "http/1.1")
	api.Time = Now // clients of the API are certified from some time on, and servers for as long as there is the authority
	special := map[string]*tls.Config{
		ProtoLink: with(tls.RequireAndVerifyClientCert, isNode, ProtoLink),
		ProtoMQTT: with(tls.RequireAndVerifyClientCert, isNode, ProtoMQTT),
		ProtoRaft: with(tls.RequireAndVerifyClientCert, isServer, ProtoRaft),
		ProtoJoin: with(tls.RequireAnyClientCert, nil, ProtoJoin),
	}
	config := api.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		for proto, c := range special {
			if slices.Contains(hello.SupportedProtos, proto) {
				return c, nil
			}
		}
		return api, nil
	}
	return config
}

// Run accepts until ctx ends.
func (m *Mux) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = m.tcp.Close() })
	defer stop()
	defer func() { _ = m.tcp.Close() }() // Accept may win over AfterFunc
	var running sync.WaitGroup
	defer running.Wait()
	defer func() {
		for _, l := range []*muxListener{m.api, m.link, m.raft, m.join, m.mqtt} {
			_ = l.Close()
		}
	}()
	for {
		conn, err := m.tcp.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			// Out of file descriptors, most likely: wait for some to come free.
			m.logger.Warn("cannot accept a connection", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		tuneConn(conn)
		if !acquire(m.conns) {
			_ = conn.Close()
			continue
		}
		counted := &countedConn{Conn: conn, release: sync.OnceFunc(func() { <-m.conns })}
		leave, ok := m.handshakes.enter(conn.RemoteAddr())
		if !ok {
			_ = counted.Close()
			continue
		}
		running.Go(func() {
			defer leave()
			m.serve(ctx, counted)
		})
	}
}

func acquire(slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// doorway bounds the handshakes at a time, and those from one address, so that one host does not keep the others out.
type doorway struct {
	mu   sync.Mutex
	all  int
	from map[string]int
}

func (d *doorway) enter(from net.Addr) (leave func(), ok bool) {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all >= maxHandshakes || d.from[host] >= maxHandshakesOfOne {
		return nil, false
	}
	d.all++
	d.from[host]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.all--
		if d.from[host]--; d.from[host] == 0 {
			delete(d.from, host)
		}
	}, true
}

// serve does the handshake and hands the connection over.
func (m *Mux) serve(ctx context.Context, raw *countedConn) {
	conn := tls.Server(raw, m.config)
	handshake, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(handshake); err != nil {
		m.logger.Debug("TLS handshake failed", "peer", raw.RemoteAddr(), "error", err)
		_ = raw.Close()
		return
	}
	l := m.api
	switch conn.ConnectionState().NegotiatedProtocol {
	case ProtoLink:
		quiet(raw.Conn)
		l = m.link
	case ProtoMQTT:
		quiet(raw.Conn)
		l = m.mqtt
	case ProtoRaft:
		l = m.raft
	case ProtoJoin:
		l = m.join
	}
	select {
	case l.queue <- conn:
	case <-l.done:
		_ = conn.Close()
	case <-handshake.Done(): // nobody accepts
		_ = conn.Close()
	}
}

// countedConn frees its slot when it is closed.
type countedConn struct {
	net.Conn
	release func()
}

// NetConn is the connection under it, for those who ask the kernel about it.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

// muxListener is one protocol's share of the port.
type muxListener struct {
	addr  net.Addr
	queue chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *muxListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.queue:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *muxListener) Addr() net.Addr { return l.addr }

func (l *muxListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}
