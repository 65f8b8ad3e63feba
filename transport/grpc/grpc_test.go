package grpc_test

import (
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/grpc"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	transporttest.RunOverTCP(t, func(t *testing.T) transporttest.Lab { return lab{transporttest.NewLoopback(t)} })
}

// lab is a cluster on the loopback interface, with the real port and real certificates.
type lab struct{ *transporttest.Loopback }

func (l lab) Listen(t *testing.T, name string, a transport.Acceptor) string {
	t.Helper()
	server := grpc.NewServer(grpc.ServerConfig{Acceptor: a, Logger: slog.New(slog.DiscardHandler), Device: transporttest.DeviceOf})
	return l.Serve(t, l.Server(t, name), func(ctx context.Context, mux *pki.Mux) error { return server.Run(ctx, mux.Link()) })
}

func (l lab) Carrier(t *testing.T, device string, servers ...string) transport.Carrier {
	t.Helper()
	return grpc.NewClient(grpc.ClientConfig{
		Device: device, Servers: servers, Dial: l.Dial(l.Node(t, device), device, pki.ProtoLink),
	})
}
