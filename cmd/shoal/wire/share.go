package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-edge/shoal/agent/runtime/content"
	"github.com/shoal-edge/shoal/agent/runtime/cri"
	"github.com/shoal-edge/shoal/agent/share"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/pki"
)

// sharing is the part of an agent that gives images to neighbours and gets them from there.
type sharing struct {
	sharer            *share.Sharer
	stock             stock
	neighbours, local net.Listener
}

// newSharing makes it; nil where it is not wanted, or where its ports are taken: it is a help, so the device works without.
func (a *Agent) newSharing(ctx context.Context, id *pki.Identity, r *cri.Runtime, fw *firmware.Device) *sharing {
	settings := a.o.Config.Agent.Neighbours
	if settings.Listen == "none" {
		return nil
	}
	s := &sharing{stock: stock{r.Content(), []firmwareStore{firmware.Artifacts(a.o.Config.Agent.Firmware.Artifacts)}}}
	if fw != nil {
		s.stock.firmware = append(s.stock.firmware, fw)
	}
	var err error
	if s.neighbours, err = listen(ctx, settings.Listen, "agent.neighbours.listen"); err == nil {
		a.closers = append(a.closers, ignoreClosed(s.neighbours.Close))
		if s.local, err = listen(ctx, settings.Mirror, "agent.neighbours.mirror"); err == nil {
			a.closers = append(a.closers, ignoreClosed(s.local.Close))
		}
	}
	if err != nil {
		a.o.Logger.Warn("nothing is shared with neighbours", "err", err)
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
		Name: a.o.Config.NodeName, Peers: peers, Store: s.stock, Logger: a.o.Logger,
		Has: func(ctx context.Context, ref string) bool {
			if sum, ok := strings.CutPrefix(ref, firmware.Name("")); ok {
				return s.stock.firmwareWith(ctx, sum) != nil
			}
			_, err := r.Image(ctx, ref)
			return err == nil
		},
		Server: id.NeighbourServer(func(node string) bool {
			_, known := a.agent.Neighbours()[node]
			return known
		}),
		Client: id.NeighbourClient,
	})
	if fw != nil {
		fw.SetNeighbours(s.sharer)
	}
	return s
}

// stock is what neighbours are given: pieces of images, and firmware.
type stock struct {
	images   *content.Store
	firmware []firmwareStore
}

type firmwareStore interface {
	share.Store
	Has(ctx context.Context, sha256 string) bool
}

func (s stock) firmwareWith(ctx context.Context, sha256 string) share.Store {
	for _, f := range s.firmware {
		if f.Has(ctx, sha256) {
			return f
		}
	}
	return nil
}

func (s stock) of(ctx context.Context, digest string) share.Store {
	if f := s.firmwareWith(ctx, strings.TrimPrefix(digest, "sha256:")); f != nil {
		return f
	}
	return s.images
}

func (s stock) Size(ctx context.Context, digest string) (int64, error) {
	return s.of(ctx, digest).Size(ctx, digest)
}

func (s stock) Copy(ctx context.Context, w io.Writer, digest string, offset int64) error {
	return s.of(ctx, digest).Copy(ctx, w, digest, offset)
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
