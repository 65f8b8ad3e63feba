package mqtt_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/mqtt"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Lab { return newLab(t) })
}

// lab is a cluster on the loopback interface, with the real port, real certificates and the embedded broker.
type lab struct {
	ca *pki.CA

	mu      sync.Mutex
	stops   map[string]func()
	conns   map[string][]net.Conn // by device
	refused map[mqtt.Refusal]int
}

func newLab(t *testing.T) *lab {
	ca, err := pki.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return &lab{ca: ca, stops: map[string]func(){}, conns: map[string][]net.Conn{}, refused: map[mqtt.Refusal]int{}}
}

func (l *lab) identity(t *testing.T, server bool, name string) *pki.Identity {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var cert []byte
	if server {
		cert, err = l.ca.IssueServer(name, key.Public(), nil)
	} else {
		cert, err = l.ca.Issue(pki.NodeSubject(name), key.Public(), nil, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.NewIdentity(l.ca.CertPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func deviceOf(state tls.ConnectionState) (string, error) {
	if name, ok := pki.NodeName(state.PeerCertificates[0]); ok {
		return name, nil
	}
	return "", errors.New("not a device")
}

func (l *lab) server(id *pki.Identity, a transport.Acceptor) *mqtt.Server {
	return mqtt.NewServer(mqtt.ServerConfig{
		Acceptor: a, Device: deviceOf, Keys: id.Signer(pki.RoleAgent), Logger: slog.New(slog.DiscardHandler),
		Refused: func(_ string, why mqtt.Refusal) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.refused[why]++
		},
	})
}

func (l *lab) refusals(why mqtt.Refusal) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused[why]
}

func (l *lab) Listen(t *testing.T, name string, a transport.Acceptor) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	id := l.identity(t, true, name)
	mux := pki.NewMux(tcp, id, slog.New(slog.DiscardHandler))
	server := l.server(id, a)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = mux.Run(ctx) })
	group.Go(func() {
		if err := server.Run(ctx, mux.MQTT()); err != nil && ctx.Err() == nil {
			t.Errorf("server: %v", err)
		}
	})
	stop := sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stops[tcp.Addr().String()] = stop
	return tcp.Addr().String()
}

func (l *lab) Stop(address string) {
	l.mu.Lock()
	stop := l.stops[address]
	l.mu.Unlock()
	stop()
}

func (l *lab) Carrier(t *testing.T, device string, servers ...string) transport.Carrier {
	t.Helper()
	id := l.identity(t, false, device)
	return mqtt.NewClient(mqtt.ClientConfig{
		Device: device, Principal: id.Leaf().Subject.CommonName, Servers: servers,
		Keys: id.Signer(pki.RoleServer), Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := id.Dial(ctx, address, pki.ProtoMQTT)
			if err != nil {
				return nil, err
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.conns[device] = append(l.conns[device], conn)
			return conn, nil
		},
	})
}

// Break cuts at the socket, without a word of goodbye.
func (l *lab) Break(device string) {
	l.mu.Lock()
	conns := l.conns[device]
	delete(l.conns, device)
	l.mu.Unlock()
	for _, conn := range conns {
		conn.(*tls.Conn).NetConn().Close()
	}
}
