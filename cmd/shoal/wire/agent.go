package wire

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/agent"
	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/agent/runtime/archive"
	"github.com/shoal-edge/shoal/agent/runtime/cri"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/network"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/transport"
	"github.com/shoal-edge/shoal/transport/grpc"
)

// Agent is the part of a process that runs pods: its link, its runtime and its database. On a server it shares the process
// with the control plane and the port with nobody: it dials its own server as any device does.
type Agent struct {
	o        Options
	lock     *os.File // nil on a server, which has its own
	id       *identity
	registry *prometheus.Registry
	health   net.Listener
	agent    *agent.Agent
	link     *transport.Link
	sharing  *sharing // nil: images are not shared
	around   func()   // returns when the server around it answers; nil: there is none
	closers  []func() error
}

// NewAgent takes the data folder, joins the cluster if this is the first start, and opens the device's database.
func NewAgent(ctx context.Context, o Options) (*Agent, error) {
	lock, err := lockDataDir(o.Config.DataDir)
	if err != nil {
		return nil, err
	}
	id, err := loadOrJoin(ctx, o, pki.RoleAgent)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	a, err := newAgent(ctx, o, id, newRegistry(o.Version), o.Config.Join.Servers)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	a.lock, a.id = lock, id
	return a, nil
}

// newAgent makes the agent of a process that knows who it is.
func newAgent(ctx context.Context, o Options, id *identity, registry *prometheus.Registry, servers []string) (_ *Agent, err error) {
	a := &Agent{o: o, registry: registry}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if o.Config.Agent.Listen != "" {
		if a.health, err = listen(ctx, o.Config.Agent.Listen, "agent.listen"); err != nil {
			return nil, err
		}
		a.closers = append(a.closers, ignoreClosed(a.health.Close))
	}
	config := agentConfig(o)
	asker := newTokenAsker(id.node, func() []string { return a.servers(servers) })
	a.closers = append(a.closers, asker.close)
	config.Tokens = asker.ask
	if config.Firmware, err = newFirmware(o); err != nil {
		return nil, err
	}
	if config.Firmware != nil {
		a.closers = append(a.closers, config.Firmware.Close)
	}
	if config.Runtime == nil {
		r, err := a.containerd()
		if err != nil {
			return nil, err
		}
		config.Runtime, config.Import = r, func(ctx context.Context, file io.Reader) ([]archive.Named, error) {
			return r.ImportArchive(ctx, file)
		}
		if a.sharing = a.newSharing(ctx, id.node, r, config.Firmware); a.sharing != nil {
			config.Mirror, config.Turn = "http://"+a.sharing.local.Addr().String(), a.sharing.sharer.Turn
		}
		config.Network = network.New(network.Config{
			CNIConfDir: o.Config.Agent.CNIConfDir,
			DataDir:    filepath.Join(o.Config.DataDir, "network"),
			Logger:     o.Logger,
		})
	}
	if a.agent, err = agent.New(config); err != nil {
		return nil, err
	}
	registry.MustRegister(a.agent.Collectors()...)
	carriers, err := a.carriers(id, a.servers(servers))
	if err != nil {
		return nil, err
	}
	a.link = transport.NewLink(transport.LinkConfig{
		Name:      o.Config.NodeName,
		Device:    a.agent,
		Carriers:  carriers,
		Heartbeat: o.Config.Agent.Heartbeat, // of links through memory
		Bulk:      perSecond(o.Config.Agent.BulkRate),
		Logger:    o.Logger,

		Acknowledged: a.agent.Acknowledged,
	})
	a.agent.SetReporter(a.link.Report)
	if config.Firmware != nil {
		config.Firmware.SetReached(a.link.Connected)
	}
	return a, nil
}

// contactFile is where the device with that data notes when it was last heard of: in memory, for it is worth nothing after the boot.
func contactFile(data string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(data)) // a hash takes everything
	return fmt.Sprintf("/run/shoal/contact-%x", h.Sum64())
}

// agentConfig is what the agent needs of the configuration file.
func agentConfig(o Options) agent.Config {
	settings := o.Config.Agent
	config := agent.Config{
		NodeName:        o.Config.NodeName,
		Address:         o.Config.AdvertiseAddress,
		DataDir:         filepath.Join(o.Config.DataDir, "agent"),
		Labels:          deviceLabels(o.Config),
		Reserved:        settings.Reserved,
		CgroupParent:    settings.CgroupParent,
		SeccompDefault:  settings.SeccompDefault,
		ShutdownGrace:   settings.ShutdownGrace,
		MaxLog:          int64(settings.ContainerLogMB) << 20,
		StaticPods:      settings.StaticPods,
		PodPIDs:         settings.PodPids,
		ImageGCHigh:     settings.ImageGC.HighPercent,
		ImageGCLow:      settings.ImageGC.LowPercent,
		RegistryConfDir: settings.RegistryConfDir,
		Runtime:         o.Runtime,
		Version:         o.Version,
		Logger:          o.Logger,
	}
	found := Hardware(settings)
	if o.Runtime == nil { // what runs in memory goes down with the process
		config.ContactFile = contactFile(o.Config.DataDir)
		config.GoesDown = goesDown
		config.Hardware, config.WatchHardware = &found, hardware.Watch
		if settings.PluginSocket != "none" {
			config.PluginSocket = settings.PluginSocket
		}
		if settings.ImageSeeds != "none" {
			config.Seeds = settings.ImageSeeds
		}
	} else {
		config.Devices = found.Declared // what is not a device of its own has no hardware
	}
	for _, r := range settings.Registries {
		config.Registries = append(config.Registries, agent.Registry(r))
	}
	return config
}

func (a *Agent) containerd() (*cri.Runtime, error) {
	r, err := cri.New(cri.Config{Socket: a.o.Config.Agent.Containerd, Logger: a.o.Logger})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, r.Close)
	return r, nil
}

// servers are the control plane's addresses: those that this process was started with, and those that it has heard of since.
func (a *Agent) servers(known []string) []string {
	return slices.Concat(known, a.agent.Servers())
}

// carriers are how this process reaches the servers, the most wanted way first.
func (a *Agent) carriers(id *identity, servers []string) ([]transport.Carrier, error) {
	if a.o.Links != nil {
		return []transport.Carrier{a.o.Links.Carrier(a.o.Config.NodeName, servers...)}, nil
	}
	var carriers []transport.Carrier
	for _, link := range a.o.Config.Agent.Links {
		if link == configs.LinkGRPC {
			carriers = append(carriers, a.grpcCarrier(id, servers))
			continue
		}
		carrier, err := a.mqttCarrier(id, servers)
		if err != nil {
			return nil, err
		}
		carriers = append(carriers, carrier)
	}
	return carriers, nil
}

func (a *Agent) grpcCarrier(id *identity, servers []string) transport.Carrier {
	p := paceOf(a.o.Config.Agent, configs.LinkGRPC)
	return grpc.NewClient(grpc.ClientConfig{
		Device:  a.o.Config.NodeName,
		Servers: servers,
		Beat:    p.beat,
		Dial:    id.linkBy(pki.ProtoLink, p.probing),
	})
}

// Run runs pods until ctx ends. They go on afterwards: stopping shoal stops no container.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.run(ctx) })
	group.Go(func() error { return renew(ctx, a.o, a.id, pki.RoleAgent, a.agent.Servers) })
	a.o.Logger.Info("running", "node", a.o.Config.NodeName)
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, a.Close(), a.lock.Close())
}

// run is what an agent does beside other parts of a process.
func (a *Agent) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.agent.Run(ctx) })
	group.Go(func() error { return a.link.Run(ctx) })
	if !a.o.Many {
		group.Go(func() error { return rescan(ctx, a.agent.Rescan) })
		group.Go(func() error { return keepWatchdog(ctx, a.alive) })
	}
	if a.sharing != nil {
		a.sharing.run(ctx, group, a)
	}
	if a.health != nil {
		group.Go(func() error { return serveHealth(ctx, a.health, a.registry, a.ready) })
	}
	return group.Wait()
}

// alive returns when the agent, and the server around it, answer.
func (a *Agent) alive() {
	a.agent.Alive()
	if a.around != nil {
		a.around()
	}
}

// ready reports why this device cannot take pods now, if it cannot.
func (a *Agent) ready() error { return a.agent.Health() }

// Close releases what the agent holds, in the opposite order.
func (a *Agent) Close() error {
	var err error
	for i := len(a.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, a.closers[i]())
	}
	a.closers = nil
	return err
}

// ignoreClosed makes closing a listener that its server has closed already no error.
func ignoreClosed(f func() error) func() error {
	return func() error {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}
