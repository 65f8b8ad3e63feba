package wire

import (
	"context"
	"crypto/x509"
	"time"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/controllers"
	"github.com/shoal-edge/shoal/controllers/dispatch"
	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

// lead is the leader's work for one term: the volatile store, the controllers, the dispatcher and the hub of the links. Losing
// the lead ends ctx; an error here makes the server step down.
func (s *Server) lead(ctx context.Context, term uint64) error {
	local := store.New(store.Config{Kinds: api.Kinds(), FirstRevision: term << 32, Logger: s.o.Logger})
	s.volatile.Store(&volatile{store: local, propose: store.NewLocal(local)})
	defer func() {
		s.volatile.Store(nil)
		local.Load(local.Revision(), nil) // ends the watches: who watches volatile objects lists them anew at the next leader
	}()

	loops, err := controllers.New(controllers.Config{
		Client:    s.client,
		Logger:    s.o.Logger,
		NodeGrace: s.o.Config.Server.NodeGrace,
		PodCIDR:   s.o.Config.Server.PodCIDR,
		NodeBits:  s.o.Config.Server.NodeBits,
		CA:        s.id.ca.CertPEM(),
		NodeName:  s.o.Config.NodeName,
		Voters:    s.voters,
		StepAside: s.node.StepAside,
		Quotas:    s.quotas,

		ServiceCIDR: s.o.Config.Server.ServiceCIDR,
		Servers:     s.servers,
		SignClient:  s.signClient,
		Unreachable: func(node string) {
			if hub := s.hub.Load(); hub != nil {
				hub.Kick(node)
			}
		},
	})
	if err != nil {
		return err
	}
	dispatcher := dispatch.New(dispatch.Config{Client: s.client, Servers: s.servers, Logger: s.o.Logger})
	hub := transport.NewHub(transport.HubConfig{Epoch: term, Owner: dispatcher, Logger: s.o.Logger})
	dispatcher.Use(hub)
	s.hub.Store(hub)
	defer s.hub.Store(nil)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return loops.Run(ctx) })
	group.Go(func() error { return dispatcher.Run(ctx) })
	group.Go(func() error { return hub.Run(ctx) })
	group.Go(func() error { return s.claimOwnName(ctx) })
	group.Go(func() error { return s.reseal(ctx, dispatcher.Compare) })
	group.Go(func() error { return s.admitDevices(ctx, hub) })
	for _, address := range s.o.Config.Server.MQTT.Brokers {
		group.Go(func() error { return s.joinBroker(ctx, address) })
	}
	return group.Wait()
}

// signClient certifies clients of the API.
func (s *Server) signClient(request []byte, usages []certificatesv1.KeyUsage, life time.Duration) ([]byte, error) {
	var usage x509.KeyUsage
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature:
			usage |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			usage |= x509.KeyUsageKeyEncipherment
		}
	}
	return s.id.ca.SignClient(request, usage, life)
}

// behindAtMost is how many entries of the log a member may lack to count as caught up: there are always some on their way.
const behindAtMost = 64

// voters are the members with a vote; with look set, they are asked how they are.
func (s *Server) voters(ctx context.Context, look bool) []waves.Voter {
	var list []waves.Voter
	if !look {
		for _, m := range s.node.Servers() {
			if m.Voter {
				list = append(list, waves.Voter{Name: m.ID})
			}
		}
		return list
	}
	members, err := s.node.Health(ctx)
	if err != nil {
		s.o.Logger.Debug("the members' health is not known", "error", err)
		return s.voters(ctx, false) // none of them healthy, so that none restarts
	}
	for _, m := range members {
		if m.Voter {
			list = append(list, waves.Voter{Name: m.ID, Healthy: m.Well && m.Behind <= behindAtMost})
		}
	}
	return list
}

// claimOwnName binds the server's own name to its key: nobody joined it by a token if it founded the cluster.
func (s *Server) claimOwnName(ctx context.Context) error {
	m := s.members()
	for {
		err := m.claim(ctx, s.o.Config.NodeName, pki.KeyHash(s.id.node.Leaf()), true)
		if err == nil {
			return nil
		}
		s.o.Logger.Debug("the server's own name is not bound yet", "error", err)
		select {
		case <-time.After(time.Second): // the namespace kube-system is on its way
		case <-ctx.Done():
			return nil
		}
	}
}

// followLeader tells the gate where the leader is whenever that changes.
func (s *Server) followLeader(ctx context.Context) error {
	for {
		changed := s.node.LeaderChanges()
		if !s.node.IsLeader() {
			if _, address, ok := s.node.Leader(); ok {
				s.gate.Follow(address)
			} else {
				s.gate.Follow()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
