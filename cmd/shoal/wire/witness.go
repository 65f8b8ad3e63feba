package wire

import (
	"context"
	"errors"
	"net"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
	"github.com/shoal-edge/shoal/store"
)

// Witness is a member of the control plane that only votes: no objects, no API, no agent, and not the cluster's authority.
type Witness struct {
	o Options
	*seat
	id       *identity
	mux      *pki.Mux
	node     *raft.Node
	health   net.Listener
	registry *prometheus.Registry
}

// NewWitness takes the data folder and the port, joins the cluster if this is the first start, and opens the log.
func NewWitness(ctx context.Context, o Options) (_ *Witness, err error) {
	w := &Witness{o: o, registry: newRegistry(o.Version)}
	if w.seat, err = takeSeat(ctx, o); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.leave())
		}
	}()
	if o.Config.Agent.Listen != "" {
		if w.health, err = listen(ctx, o.Config.Agent.Listen, "agent.listen"); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				_ = w.health.Close()
			}
		}()
	}
	if w.id, err = loadOrJoin(ctx, o, pki.RoleWitness); err != nil {
		return nil, err
	}
	w.mux = pki.NewMux(w.listener, w.id.node, o.Logger)
	for _, unused := range []net.Listener{w.mux.API(), w.mux.Link(), w.mux.Join()} {
		_ = unused.Close() // it never fails
	}
	w.node, err = raft.Open(raft.Config{
		ID:              o.Config.NodeName,
		Address:         w.address,
		Dir:             raftDir(o.Config.DataDir),
		Layer:           raftLayer{Listener: w.mux.Raft(), id: w.id.node},
		ElectionTimeout: o.Config.Server.ElectionTimeout,
		Store:           store.New(store.Config{Kinds: api.Kinds(), Persisted: true, Logger: o.Logger}),
		Witness:         true,
		Logger:          o.Logger,
	})
	if err != nil {
		return nil, err
	}
	registerRaftMetrics(w.registry, w.node)
	return w, nil
}

// ready reports why this vote does not count now, if it does not.
func (w *Witness) ready() error {
	if _, _, ok := w.node.Leader(); !ok {
		return errors.New("no leader is known")
	}
	return nil
}

// Run votes until ctx ends.
func (w *Witness) Run(ctx context.Context) error {
	servers := func() []string { return slices.Concat(w.node.Addresses(), w.id.servers, w.o.Config.Join.Servers) }
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.mux.Run(ctx) })
	group.Go(func() error { return w.node.Run(ctx, neverLead) })
	group.Go(func() error {
		announcer := &announcer{
			node: w.node, id: w.id.node, me: announcement{ID: w.o.Config.NodeName, Address: w.address}, witness: true,
			candidates: servers, logger: w.o.Logger,
		}
		return announcer.run(ctx)
	})
	group.Go(func() error { return renew(ctx, w.o, w.id, pki.RoleWitness, servers) })
	if w.health != nil {
		group.Go(func() error { return serveHealth(ctx, w.health, w.registry, w.ready) })
	}
	group.Go(func() error {
		return followAddress(ctx, w.o.Config.AdvertiseAddress, w.o.Config.PresentAddress, addressLook)
	})
	w.o.Logger.Info("witnessing", "name", w.o.Config.NodeName, "address", w.address)
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, w.leave())
}

// neverLead is a witness's work as a leader.
func neverLead(context.Context, uint64) error { return errors.New("a witness does not lead") }
