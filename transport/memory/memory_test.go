package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/memory"
	"github.com/shoal-edge/shoal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type lab struct{ network *memory.Network }

func (l lab) Listen(_ *testing.T, name string, a transport.Acceptor) string {
	l.network.Listen(name, a)
	return name
}

func (l lab) Stop(address string) { l.network.Remove(address) }

func (l lab) Carrier(_ *testing.T, device string, servers ...string) transport.Carrier {
	return l.network.Carrier(device, servers...)
}

func (l lab) Break(device string) { l.network.Break(device) }

func TestSuite(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Lab {
		network := memory.NewNetwork()
		t.Cleanup(network.Wait)
		return lab{network}
	})
}
