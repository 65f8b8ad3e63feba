package wire

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// Pauses of the encryption anew: between two objects, so that others get their turn, and after a failure.
const (
	resealPause = 10 * time.Millisecond
	resealRetry = 2 * time.Second
)

// maxAsked is how often a new leader that lacks keys asks servers that do not answer, before devices link to it.
const maxAsked = 3

// admitDevices lets devices link to the hub until ctx ends. A leader that lacks keys asks for them first: devices are told which
// Secrets there are, and must not be told that one is gone. Nothing else of the leader's work waits for that.
func (s *Server) admitDevices(ctx context.Context, hub *transport.Hub) error {
	for range maxAsked {
		count, why := s.unreadable()
		if count == 0 {
			break
		}
		s.o.Logger.Error("the leader cannot decrypt all Secrets", "count", count, "error", why)
		if _, err := s.exchangeAll(ctx); err == nil {
			break // nobody has more
		} else if ctx.Err() == nil {
			s.o.Logger.Warn("not all servers gave their keys", "error", err)
		}
	}
	defer s.gate.Lead(hub)()
	<-ctx.Done()
	return nil
}

// reseal encrypts with the primary key what is not, while this server leads: after a rotation, after an upgrade from plain values,
// after a restore. With other keys more can be read, so it also has the devices' state compared.
func (s *Server) reseal(ctx context.Context, compare func()) error {
	for {
		retry := s.resealAll(ctx)
		var again <-chan time.Time
		if retry {
			again = time.After(resealRetry)
		}
		select {
		case <-again:
		case <-s.keys.changed:
			compare()
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) resealAll(ctx context.Context) (retry bool) {
	var stale []store.Key
	s.sensitive(func(item store.Item) {
		if is, err := s.durable.CheckSeal(item); err == nil && is {
			stale = append(stale, item.Key)
		}
	})
	if len(stale) == 0 {
		return false
	}
	s.o.Logger.Info("encrypting Secrets anew", "count", len(stale))
	for _, key := range stale {
		if err := s.client.Reseal(ctx, key); err != nil && !errors.Is(err, store.ErrSealed) {
			s.o.Logger.Debug("a Secret was not encrypted anew", "key", key, "error", err)
			retry = true
		}
		select {
		case <-time.After(resealPause):
		case <-ctx.Done():
			return false
		}
	}
	if !retry {
		s.o.Logger.Info("all Secrets are encrypted with the present key", "count", len(stale))
	}
	return retry
}
