package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/raft"
	"github.com/shoal-edge/shoal/store/seal"
)

// exchangePath is where servers exchange the keys of Secrets: each ends up with all that both had.
const exchangePath = "/shoal/v1/secrets/exchange"

const (
	maxRing         = 64 << 10
	exchangeTimeout = 4 * time.Second
)

// serveExchange takes another server's keys and answers with all that there are.
func (s *Server) serveExchange(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		http.Error(w, "servers exchange keys here, with their certificates", http.StatusForbidden)
		return
	}
	name, ok := pki.ServerName(r.TLS.PeerCertificates[0])
	if !ok {
		http.Error(w, "only servers get the keys", http.StatusForbidden)
		return
	}
	answer, err := s.takeKeys(r.Context(), r.Body)
	if err != nil {
		s.o.Logger.Error("cannot take the keys of another server", "server", name, "error", err)
		http.Error(w, "the keys cannot be taken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // a peer that is gone needs no answer
}

// takeKeys merges another server's keys into this one's. Once it answers, nothing is on its way into the log any more that was
// encrypted with a key that is not the primary one now: the other server may be about to drop that.
func (s *Server) takeKeys(ctx context.Context, from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxRing))
	if err != nil {
		return nil, err
	}
	ring, err := seal.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := s.keys.merge(ring); err != nil {
		return nil, err
	}
	answer, err := s.keys.Ring().Marshal()
	if err != nil {
		return nil, err
	}
	return answer, s.durable.Settle(ctx)
}

// exchange gives this server's keys to another one, and takes what that has.
func (s *Server) exchange(ctx context.Context, client *http.Client, with raft.Server) error {
	own, err := s.keys.Ring().Marshal()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+with.Address+exchangePath, bytes.NewReader(own))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if name, _ := pki.ServerName(response.TLS.PeerCertificates[0]); name != with.ID {
		return fmt.Errorf("%q answers there", name)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxRing))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(data))
	}
	ring, err := seal.Parse(data)
	if err != nil {
		return err
	}
	return s.keys.merge(ring)
}

// exchangeAll exchanges keys with all other servers at once. The error names those that did not answer.
func (s *Server) exchangeAll(ctx context.Context) (answered int, err error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: s.id.server.ClientConfig("http/1.1"), DisableKeepAlives: true},
	}
	var (
		group sync.WaitGroup
		mu    sync.Mutex
	)
	for _, m := range s.otherServers() {
		group.Go(func() {
			failure := s.exchange(ctx, client, m)
			mu.Lock()
			defer mu.Unlock()
			if failure == nil {
				answered++
				return
			}
			failure = fmt.Errorf("%s (%s): %w", m.ID, m.Address, failure)
			if err != nil {
				failure = fmt.Errorf("%w; %w", err, failure) // one line
			}
			err = failure
		})
	}
	group.Wait()
	return answered, err
}

func (s *Server) otherServers() []raft.Server {
	var others []raft.Server
	for _, m := range s.node.Servers() {
		if m.ID != s.o.Config.NodeName && !m.Witness {
			others = append(others, m)
		}
	}
	return others
}

// Pauses between two exchanges: whoever has no key to give is not asked all the time.
const (
	firstExchangePause = time.Second
	maxExchangePause   = time.Minute
)

// keepKeys has the keys of the other servers until ctx ends: at the start, and whenever a value is met whose key is not here.
func (s *Server) keepKeys(ctx context.Context) error {
	pause := firstExchangePause
	for {
		changes, before := s.node.LeaderChanges(), s.keys.Ring()
		answered, err := s.exchangeAll(ctx)
		if err != nil && ctx.Err() == nil {
			s.o.Logger.Debug("not all servers exchange keys", "error", err)
		}
		if !s.keys.Ring().Equal(before) {
			pause = firstExchangePause
		}
		var early <-chan struct{}
		if answered > 0 {
			select {
			case <-s.keys.missing:
				s.o.Logger.Info("the key of a Secret is missing here; asking the other servers")
			case <-ctx.Done():
			}
		} else {
			early = changes // this server hears of the others, or they are back
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxExchangePause)
		case <-early:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
