package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/agent/runtime/fake"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/controllers/dispatch"
)

// atOnce bounds the devices that join at the same time: this process makes all their keys.
const atOnce = 32

// siteSize is how many devices are in one network.
const siteSize = 16

// devices is the fleet.
type devices struct {
	o                   options
	dir, address, token string
	running             sync.WaitGroup
	cancel              context.CancelFunc

	mu  sync.Mutex
	err error
}

func newDevices(o options, dir, address, token string) *devices {
	return &devices{o: o, dir: dir, address: address, token: token, cancel: func() {}}
}

func deviceName(i int) string { return fmt.Sprintf("device-%05d", i) }

func newRuntime(i int) *fake.Runtime {
	return fake.New(fake.Config{FirstIP: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 2}), NoLogs: true})
}

// start has all devices join and run. Their lives do not end with ctx, which bounds the joins only.
func (d *devices) start(ctx context.Context) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range d.o.devices {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return d.startOne(ctx, life, i) })
	}
	return group.Wait()
}

func (d *devices) startOne(ctx, life context.Context, i int) error {
	dir := filepath.Join(d.dir, deviceName(i))
	c := configs.Config{
		NodeName: deviceName(i), DataDir: dir, AdvertiseAddress: netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)}).String(),
		Join: configs.Join{Servers: []string{d.address}, Token: d.token},
		Agent: configs.Agent{
			Labels: map[string]string{dispatch.LANLabel: fmt.Sprintf("site-%d", i/siteSize)},
			Links:  []string{d.o.carrier}, CNIConfDir: filepath.Join(dir, "cni"), RegistryConfDir: filepath.Join(dir, "certs.d"),
		},
	}
	c.Agent.Idle = d.o.idleMode()
	c, err := configs.Complete(c)
	if err != nil {
		return err
	}
	c.Agent.Listen = ""
	logger := slog.New(slog.NewTextHandler(d.o.log, &slog.HandlerOptions{Level: slog.LevelError}))
	agent, err := wire.NewAgent(ctx, wire.Options{
		Config: c, Logger: logger.With("device", c.NodeName), Version: d.o.version, Runtime: newRuntime(i), Many: true,
	})
	if err != nil {
		return err
	}
	d.running.Go(func() {
		if err := agent.Run(life); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.err = errors.Join(d.err, fmt.Errorf("%s: %w", c.NodeName, err))
		}
	})
	return nil
}

// stop ends all devices and tells what went wrong with any.
func (d *devices) stop() error {
	d.cancel()
	d.running.Wait()
	return d.err
}
