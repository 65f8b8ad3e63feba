package wire

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/agent/runtime/cri"
	"github.com/shoal-edge/shoal/agent/share"
	"github.com/shoal-edge/shoal/pki"
)

// sharing is the part of an agent that gives images to neighbours and gets them from there.
type sharing struct {
	sharer            *share.Sharer
	neighbours, local net.Listener
}

// newSharing makes it; nil where it is not wanted, or where its ports are taken: it is a help, so the device works without.
func (a *Agent) newSharing(ctx context.Context, id *pki.Identity, r *cri.Runtime) *sharing {
	settings := a.o.Config.Agent.Neighbours
	if settings.Listen == "none" {
		return nil
	}
	s := &sharing{}
	var err error
	if s.neighbours, err = listen(ctx, settings.Listen, "agent.neighbours.listen"); err == nil {
		a.closers = append(a.closers, ignoreClosed(s.neighbours.Close))
		if s.local, err = listen(ctx, settings.Mirror, "agent.neighbours.mirror"); err == nil {
			a.closers = append(a.closers, ignoreClosed(s.local.Close))
		}
	}
	if err != nil {
		a.o.Logger.Warn("images are not shared with neighbours", "err", err)
		return nil
	}
	_, port, _ := net.SplitHostPort(settings.Listen)
	peers := func() []share.Peer {
		var all []share.Peer
		for name, address := range a.agent.Neighbours() {
			all = append(all, share.Peer{Name: name, Address: net.JoinHostPort(address, port)})
		}
		return all
	}
	s.sharer = share.New(share.Config{
		Name: a.o.Config.NodeName, Peers: peers, Store: r.Content(), Logger: a.o.Logger,
		Has: func(ctx context.Context, ref string) bool { _, err := r.Image(ctx, ref); return err == nil },
		Server: id.NeighbourServer(func(node string) bool {
			_, known := a.agent.Neighbours()[node]
			return known
		}),
		Client: id.NeighbourClient,
	})
	return s
}

// run shares until ctx ends. What goes wrong with it ends nothing else.
func (s *sharing) run(ctx context.Context, group *errgroup.Group, a *Agent) {
	group.Go(func() error {
		if err := s.sharer.Run(ctx, s.neighbours, s.local); err != nil && !errors.Is(err, context.Canceled) {
			a.o.Logger.Warn("images are not shared with neighbours any more", "err", err)
		}
		return nil
	})
}
