package pki

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"
)

// TestWitness lets a witness in by either token, and sees that it gets a name and nothing else.
func TestWitness(t *testing.T) {
	ca := must[*CA](t)(NewCA())
	s := newSite(t, ca)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, role := range []Role{RoleWitness, RoleServer} {
		req := s.request(t, s.token(t, role, time.Time{}), RoleWitness, "w-"+string(role))
		grant := must[*Grant](t)(Join(ctx, req))
		if grant.CAKey != nil || grant.Server != nil {
			t.Error("a witness was given a server's secrets")
		}
		id := must[*Identity](t)(NewIdentity(grant.CA, grant.Node, req.Key))
		_, isNode := NodeName(id.Leaf())
		_, isServer := ServerName(id.Leaf())
		if name, ok := WitnessName(id.Leaf()); !ok || name != req.Name || isNode || isServer {
			t.Errorf("the certificate names %q", id.Leaf().Subject)
		}
		if _, err := Renew(ctx, id, req); err != nil {
			t.Errorf("renewal: %v", err)
		}
		for _, more := range []Role{RoleServer, RoleAgent} {
			req.Role = more
			if _, err := Renew(ctx, id, req); !errors.Is(err, ErrRefused) {
				t.Errorf("a witness became a %s by a renewal: %v", more, err)
			}
		}
	}
	token := s.token(t, RoleWitness, time.Time{})
	for _, more := range []Role{RoleServer, RoleAgent} {
		if _, err := Join(ctx, s.request(t, token, more, "x")); !errors.Is(err, ErrRefused) {
			t.Errorf("a witness's token let a %s in: %v", more, err)
		}
	}
}

// TestWitnessIsReachedByRaftOnly dials one as a server does.
func TestWitnessIsReachedByRaftOnly(t *testing.T) {
	ca := must[*CA](t)(NewCA())
	identity := func(issue func(*ecdsa.PrivateKey) ([]byte, error)) *Identity {
		key := must[*ecdsa.PrivateKey](t)(NewKey())
		return must[*Identity](t)(NewIdentity(ca.CertPEM(), must[[]byte](t)(issue(key)), key))
	}
	server := identity(func(key *ecdsa.PrivateKey) ([]byte, error) { return ca.IssueServer("s", key.Public(), nil) })
	witness := identity(func(key *ecdsa.PrivateKey) ([]byte, error) {
		return ca.Issue(WitnessSubject("w"), key.Public(), nil, nil)
	})

	tcp := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	mux := NewMux(tcp, witness, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = mux.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	for proto, want := range map[string]bool{ProtoRaft: true, ProtoLink: false, "http/1.1": false} {
		conn, err := server.Dial(t.Context(), tcp.Addr().String(), proto)
		if (err == nil) != want {
			t.Errorf("%s: %v", proto, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}
