package transporttest

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport"
)

// Loopback is what the labs of carriers over real connections share: an authority, servers on the loopback interface, and devices
// whose connections can be cut. It is a Lab but for Listen and Carrier.
type Loopback struct {
	CA *pki.CA

	mu    sync.Mutex
	stops map[string]func()     // by address
	conns map[string][]net.Conn // by device
}

// NewLoopback makes one with an authority of its own.
func NewLoopback(t testing.TB) *Loopback {
	t.Helper()
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return &Loopback{CA: ca, stops: map[string]func(){}, conns: map[string][]net.Conn{}}
}

// Server certifies a server.
func (l *Loopback) Server(t testing.TB, name string) *pki.Identity {
	t.Helper()
	return l.certify(t, func(key crypto.PublicKey) ([]byte, error) { return l.CA.IssueServer(name, key, nil) })
}

// Node certifies a device.
func (l *Loopback) Node(t testing.TB, name string) *pki.Identity {
	t.Helper()
	return l.certify(t, func(key crypto.PublicKey) ([]byte, error) { return l.CA.Issue(pki.NodeSubject(name), key, nil, nil) })
}

func (l *Loopback) certify(t testing.TB, issue func(crypto.PublicKey) ([]byte, error)) *pki.Identity {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := issue(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.NewIdentity(l.CA.CertPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// DeviceOf names the device at the other end of a connection.
func DeviceOf(state tls.ConnectionState) (string, error) {
	if name, ok := pki.NodeName(state.PeerCertificates[0]); ok {
		return name, nil
	}
	return "", errors.New("not a device")
}

// Serve serves the real port with its protocols until Stop, and returns its address.
func (l *Loopback) Serve(t *testing.T, id *pki.Identity, serve func(context.Context, *pki.Mux) error) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := pki.NewMux(tcp, id, quiet())
	address := tcp.Addr().String()
	l.Run(t, address, nil, mux.Run, func(ctx context.Context) error {
		err := serve(ctx, mux)
		if err != nil && ctx.Err() == nil {
			t.Errorf("server: %v", err)
		}
		return err
	})
	return address
}

// Run runs what makes a server until Stop of its address or the end of the test; first, which may be nil, goes before their end.
func (l *Loopback) Run(t *testing.T, address string, first func(), parts ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, part := range parts {
		group.Go(func() { _ = part(ctx) }) // it says itself what a test should hear
	}
	stop := sync.OnceFunc(func() {
		if first != nil {
			first()
		}
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stops[address] = stop
}

// Stop ends a server.
func (l *Loopback) Stop(address string) {
	l.mu.Lock()
	stop := l.stops[address]
	l.mu.Unlock()
	stop()
}

// Dial is how a device dials, so that Break finds its connections.
func (l *Loopback) Dial(id *pki.Identity, device, protocol string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := id.Dial(ctx, address, protocol)
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns[device] = append(l.conns[device], conn)
		return conn, nil
	}
}

// Break cuts at the socket, without a word of goodbye.
func (l *Loopback) Break(device string) {
	l.mu.Lock()
	conns := l.conns[device]
	delete(l.conns, device)
	l.mu.Unlock()
	for _, conn := range conns {
		_ = conn.(*tls.Conn).NetConn().Close()
	}
}

// Lead makes a hub of the owner in its first term, and a gate that it leads.
func Lead(owner *Owner, cfg transport.HubConfig) (*transport.Hub, *transport.Gate) {
	cfg.Epoch, cfg.Owner, cfg.Logger = 1, owner, quiet()
	hub := transport.NewHub(cfg)
	owner.Use(hub)
	gate := transport.NewGate()
	gate.Lead(hub)
	return hub, gate
}
