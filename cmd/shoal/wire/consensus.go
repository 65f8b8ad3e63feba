package wire

import (
	"context"

	"github.com/shoal-edge/shoal/raft"
	"github.com/shoal-edge/shoal/store"
)

// consensus is the node as the API sees it: a server leads once it has all that earlier leaders committed, and not before.
type consensus struct{ *raft.Node }

func (c consensus) IsLeader() bool { return c.Ready() }

func (c consensus) Leader() (id, address string, ok bool) {
	if c.Node.IsLeader() && !c.Ready() {
		return "", "", false
	}
	return c.Node.Leader()
}

// strictClient is for users: it refuses no write by an old state, and asks the guards, too. Controllers look again anyway, and
// ask the quorum for nothing.
func (s *Server) strictClient(guards []store.Admitter) *store.Client {
	cfg := s.clientConfig()
	cfg.Admit = append(cfg.Admit, guards...)
	cfg.Confirm = func(ctx context.Context) error {
		revision, err := s.node.ReadIndex(ctx)
		if err != nil {
			return err
		}
		return s.durable.Wait(ctx, revision)
	}
	return store.NewClient(cfg)
}
