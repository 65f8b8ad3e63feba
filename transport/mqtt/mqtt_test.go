package mqtt_test

import (
	"context"
	"log/slog"
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
	transporttest.RunOverTCP(t, func(t *testing.T) transporttest.Lab { return newLab(t) })
}

// lab is a cluster on the loopback interface, with the real port, real certificates and the embedded broker.
type lab struct {
	*transporttest.Loopback

	mu      sync.Mutex
	refused map[mqtt.Refusal]int
}

func newLab(t *testing.T) *lab {
	return &lab{Loopback: transporttest.NewLoopback(t), refused: map[mqtt.Refusal]int{}}
}

func (l *lab) server(id *pki.Identity, a transport.Acceptor) *mqtt.Server {
	return mqtt.NewServer(mqtt.ServerConfig{
		Acceptor: a, Device: transporttest.DeviceOf, Keys: id.Signer(pki.RoleAgent), Logger: slog.New(slog.DiscardHandler),
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
	id := l.Server(t, name)
	server := l.server(id, a)
	return l.Serve(t, id, func(ctx context.Context, mux *pki.Mux) error { return server.Run(ctx, mux.MQTT()) })
}

func (l *lab) Carrier(t *testing.T, device string, servers ...string) transport.Carrier {
	t.Helper()
	id := l.Node(t, device)
	return mqtt.NewClient(mqtt.ClientConfig{
		Device: device, Principal: id.Leaf().Subject.CommonName, Servers: servers,
		Keys: id.Signer(pki.RoleServer), Logger: slog.New(slog.DiscardHandler), Dial: l.Dial(id, device, pki.ProtoMQTT),
	})
}
