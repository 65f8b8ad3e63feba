package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// site is one server's port with an authority behind it.
type site struct {
	ca      *CA
	mux     *Mux
	address string
	members *fakeMembers
}

type fakeMembers struct {
	mu     sync.Mutex
	tokens map[string]*corev1.Secret
	names  map[string]string
	leader string
}

func (m *fakeMembers) TokenSecret(_ context.Context, id string) (*corev1.Secret, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.tokens[id]; ok {
		return s, nil
	}
	return nil, ErrTokenUnknown
}

func (m *fakeMembers) Claim(_ context.Context, name, hash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.names[name]; ok && have != hash {
		return ErrNameTaken
	}
	m.names[name] = hash
	return nil
}

func (m *fakeMembers) Servers() []string      { return []string{"10.0.0.1:6443"} }
func (m *fakeMembers) Leader() (string, bool) { return m.leader, true }

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newSite(t *testing.T, ca *CA) *site {
	t.Helper()
	tcp := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert := must[[]byte](t)(ca.IssueServer("s1", key.Public(), nil))
	id := must[*Identity](t)(NewIdentity(ca.CertPEM(), cert, key))
	logger := slog.New(slog.DiscardHandler)
	s := &site{
		ca: ca, address: tcp.Addr().String(), mux: NewMux(tcp, id, logger),
		members: &fakeMembers{tokens: map[string]*corev1.Secret{}, names: map[string]string{}},
	}
	authority := &Authority{
		CA: ca, Members: s.members, Logger: logger,
		SecretsKeys: func() ([]byte, error) { return []byte("keys"), nil },
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Add(2)
	go func() { defer running.Done(); _ = s.mux.Run(ctx) }()
	go func() { defer running.Done(); _ = authority.Serve(ctx, s.mux.Join()) }()
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

func (s *site) token(t *testing.T, role Role, expiration time.Time) Token {
	t.Helper()
	token := must[Token](t)(NewToken(s.ca.Hash()))
	s.members.mu.Lock()
	defer s.members.mu.Unlock()
	s.members.tokens[token.ID] = NewTokenSecret(token, role, expiration, "")
	return token
}

func (s *site) request(t *testing.T, token Token, role Role, name string) JoinRequest {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return JoinRequest{Servers: []string{s.address}, Token: token, Role: role, Name: name, Address: "10.0.0.2", Key: key}
}

func TestJoin(t *testing.T) {
	ca := must[*CA](t)(NewCA())
	s := newSite(t, ca)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	req := s.request(t, s.token(t, RoleAgent, time.Time{}), RoleAgent, "pi-1")
	grant := must[*Grant](t)(Join(ctx, req))
	id := must[*Identity](t)(NewIdentity(grant.CA, grant.Node, req.Key))
	if name, ok := NodeName(id.Leaf()); !ok || name != "pi-1" {
		t.Errorf("the certificate names %q", id.Leaf().Subject)
	}
	if grant.CAKey != nil || grant.Server != nil || grant.SecretsKeys != nil {
		t.Error("an agent was given a server's secrets")
	}
	if _, err := Renew(ctx, id, req); err != nil {
		t.Errorf("renewal: %v", err)
	}
	req.Name = "pi-2"
	if _, err := Renew(ctx, id, req); !errors.Is(err, ErrRefused) {
		t.Errorf("a device renewed another's certificate: %v", err)
	}

	srv := s.request(t, s.token(t, RoleServer, time.Time{}), RoleServer, "pi-3")
	grant = must[*Grant](t)(Join(ctx, srv))
	if _, err := ParseCA(grant.CA, grant.CAKey); err != nil || grant.Server == nil || string(grant.SecretsKeys) != "keys" {
		t.Errorf("a server got an incomplete grant: %v", err)
	}
}

func TestJoinRefused(t *testing.T) {
	ca := must[*CA](t)(NewCA())
	s := newSite(t, ca)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	good := s.token(t, RoleAgent, time.Now().Add(time.Hour))
	wrongSecret := good
	wrongSecret.Secret = strings.Repeat("a", 26)
	foreign := must[*CA](t)(NewCA())
	foreignToken := must[Token](t)(NewToken(foreign.Hash()))

	for name, tc := range map[string]struct {
		token Token
		role  Role
		want  string
	}{
		"unknown":      {must[Token](t)(NewToken(ca.Hash())), RoleAgent, ErrTokenUnknown.Error()},
		"wrong secret": {wrongSecret, RoleAgent, ErrTokenUnknown.Error()},
		"expired":      {s.token(t, RoleAgent, time.Now().Add(-time.Minute)), RoleAgent, ErrTokenExpired.Error()},
		"wrong role":   {good, RoleServer, ErrTokenRole.Error()},
		"wrong CA":     {foreignToken, RoleAgent, errWrongCA.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Join(ctx, s.request(t, tc.token, tc.role, "pi-9"))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}

	if _, err := Join(ctx, s.request(t, good, RoleAgent, "pi-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(ctx, s.request(t, good, RoleAgent, "pi-1")); err == nil || !strings.Contains(err.Error(), ErrNameTaken.Error()) {
		t.Errorf("a second device took the name: %v", err)
	}
}

func TestMuxChecksCertificates(t *testing.T) {
	ca := must[*CA](t)(NewCA())
	s := newSite(t, ca)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	node := must[*Identity](t)(NewIdentity(ca.CertPEM(), must[[]byte](t)(ca.Issue(NodeSubject("n"), key.Public(), nil, nil)), key))
	selfMade, err := selfSigned(key, "x")
	if err != nil {
		t.Fatal(err)
	}
	showSelfMade := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &selfMade, nil }
	got := make(chan net.Conn, 1)
	go func() {
		if c, err := s.mux.Link().Accept(); err == nil {
			got <- c
		}
	}()
	conn, err := node.Dial(t.Context(), s.address, ProtoLink)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	select {
	case c := <-got:
		if name, _ := NodeName(c.(*tls.Conn).ConnectionState().PeerCertificates[0]); name != "n" {
			t.Errorf("the link is of %q", name)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the link was not handed over")
	}

	for name, c := range map[string]*tls.Config{
		"node at raft":         node.ClientConfig(ProtoRaft),
		"self-signed at link":  {NextProtos: []string{ProtoLink}, GetClientCertificate: showSelfMade, InsecureSkipVerify: true},
		"self-signed at API":   {NextProtos: []string{"http/1.1"}, GetClientCertificate: showSelfMade, InsecureSkipVerify: true},
		"no certificate, join": {NextProtos: []string{ProtoJoin}, InsecureSkipVerify: true},
		"unknown protocol":     {NextProtos: []string{"smtp"}, InsecureSkipVerify: true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := refusedBy(t, s.address, c); err == nil {
				t.Error("the connection was let in")
			}
		})
	}
}

// refusedBy dials and reads: with TLS 1.3 the server's refusal of a certificate arrives after the client's handshake.
func refusedBy(t *testing.T, address string, c *tls.Config) error {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, c)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	request, _ := http.NewRequest(http.MethodGet, "https://x/", nil)
	if err := request.Write(conn); err != nil {
		return err
	}
	_, err = io.ReadAll(conn)
	var alert tls.AlertError
	if errors.As(err, &alert) || (err != nil && strings.Contains(err.Error(), "remote error")) {
		return err
	}
	return nil
}

func TestParseToken(t *testing.T) {
	token := must[Token](t)(NewToken(must[*CA](t)(NewCA()).Hash()))
	back, err := ParseToken(" " + token.String() + "\n")
	if err != nil || back != token {
		t.Errorf("got %v, %v", back, err)
	}
	for _, text := range []string{"", "shoal1.x.y.z", token.String() + "a", strings.ToUpper(token.String())} {
		if _, err := ParseToken(text); err == nil || !strings.Contains(err.Error(), "shoal token create") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("shoal1." + strings.Repeat("0", 64) + ".abcdef." + strings.Repeat("a", 26))
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil && token.String() != strings.TrimSpace(text) {
			t.Errorf("%q became %q", text, token.String())
		}
	})
}
