package wire

import (
	"context"
	"time"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
)

// NewToken makes a join token as `shoal token create` does, from inside: it waits until the server can write.
func (s *Server) NewToken(ctx context.Context, role pki.Role, ttl time.Duration) (pki.Token, error) {
	token, err := pki.NewToken(s.id.ca.Hash())
	if err != nil {
		return token, err
	}
	for {
		changed := s.node.LeaderChanges()
		_, err := s.client.Create(ctx, pki.NewTokenSecret(token, role, pki.Now().Add(ttl), ""))
		if err == nil {
			return token, nil
		}
		s.o.Logger.Debug("no token yet", "error", err)
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return token, ctx.Err()
		}
	}
}

// Members are the members of the control plane as this server knows them.
func (s *Server) Members() []raft.Server {
	if s.node == nil {
		return nil
	}
	return s.node.Servers()
}

// IsLeader reports whether this server leads.
func (s *Server) IsLeader() bool { return s.node != nil && s.node.IsLeader() }
