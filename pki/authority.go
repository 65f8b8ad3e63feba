package pki

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Paths of the join protocol, spoken as HTTP on ProtoJoin.
const (
	pathJoin  = "/shoal/v1/join"
	pathRenew = "/shoal/v1/renew"
)

// maxBody bounds a join request and its answer, in bytes.
const maxBody = 64 << 10

// joinBody is what a device sends.
type joinBody struct {
	TokenID     string `json:"tokenID,omitempty"`
	TokenSecret string `json:"tokenSecret,omitempty"`
	Role        Role   `json:"role"`
	Name        string `json:"name"`
	Address     string `json:"address"`
	// SANs are further names and addresses for a server's certificate.
	SANs []string `json:"sans,omitempty"`
}

// Grant is what a device gets.
type Grant struct {
	CA   []byte `json:"ca"`
	Node []byte `json:"node"` // certificate of the agent, or of the witness, PEM
	// For servers: certificate, and the authority's key.
	Server []byte `json:"server,omitempty"`
	CAKey  []byte `json:"caKey,omitempty"`
	// SecretsKeys are, for servers, the keys under which Secrets are stored.
	SecretsKeys []byte `json:"secretsKeys,omitempty"`
	// Servers are the addresses of the control plane.
	Servers []string `json:"servers"`
}

// refusal is the body of an answer that is not a grant.
type refusal struct {
	Error  string `json:"error"`
	Leader string `json:"leader,omitempty"` // ask this server instead
}

// ErrNameTaken says that another device has the name.
var ErrNameTaken = errors.New("another device has this node name; choose another nodeName, or delete the old node with kubectl first")

// Members is what the authority needs of the cluster's state. Its reads are linearizable.
type Members interface {
	// TokenSecret returns the Secret of a token, or ErrTokenUnknown.
	TokenSecret(ctx context.Context, id string) (*corev1.Secret, error)
	// Claim binds a name to the hash of a public key, or returns ErrNameTaken. Binding the same again is fine.
	Claim(ctx context.Context, name, keyHash string) error
	// Servers are the addresses of the control plane, and Leader that of the leader, empty if this server leads.
	Servers() []string
	Leader() (address string, known bool)
}

// Authority answers joins and renewals.
type Authority struct {
	CA      *CA
	Members Members
	// SecretsKeys returns what a joining server needs to read Secrets. Nil: nothing.
	SecretsKeys func() ([]byte, error)
	Logger      *slog.Logger
}

// ServeHTTP implements the join protocol.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || (r.URL.Path != pathJoin && r.URL.Path != pathRenew) {
		writeJSON(w, http.StatusNotFound, refusal{Error: "there is only POST " + pathJoin + " and " + pathRenew})
		return
	}
	leader, known := a.Members.Leader()
	if !known {
		writeJSON(w, http.StatusServiceUnavailable, refusal{Error: "the control plane has no leader yet"})
		return
	}
	if leader != "" {
		writeJSON(w, http.StatusMisdirectedRequest, refusal{Error: "this server does not lead", Leader: leader})
		return
	}
	var body joinBody
	if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&body); err != nil {
		writeJSON(w, http.StatusBadRequest, refusal{Error: "malformed request: " + err.Error()})
		return
	}
	grant, err := a.grant(r.Context(), r.URL.Path, r.Context().Value(peerKey{}).(*x509.Certificate), &body)
	if err != nil {
		a.Logger.Warn("refused a join", "node", body.Name, "peer", r.RemoteAddr, "error", err)
		writeJSON(w, joinStatus(err), refusal{Error: err.Error()})
		return
	}
	a.Logger.Info("let a device in", "node", body.Name, "role", body.Role, "token", body.TokenID, "peer", r.RemoteAddr)
	writeJSON(w, http.StatusOK, grant)
}

// grant checks one request. The peer proved in the handshake that it holds the key of the certificate that it showed, so
// that key is what gets certified.
func (a *Authority) grant(ctx context.Context, path string, peer *x509.Certificate, body *joinBody) (*Grant, error) {
	if msgs := validation.IsDNS1123Subdomain(body.Name); len(msgs) > 0 {
		return nil, badRequest{fmt.Errorf("node name %q: %s", body.Name, msgs[0])}
	}
	if net.ParseIP(body.Address) == nil {
		return nil, badRequest{fmt.Errorf("address %q is not an IP address", body.Address)}
	}
	if body.Role != RoleServer && body.Role != RoleAgent && body.Role != RoleWitness {
		return nil, badRequest{fmt.Errorf("unknown role %q", body.Role)}
	}
	if path == pathRenew {
		if err := a.checkRenewal(peer, body); err != nil {
			return nil, err
		}
	} else {
		stored, err := a.Members.TokenSecret(ctx, body.TokenID)
		if err != nil {
			return nil, err
		}
		if err := CheckToken(stored, body.TokenSecret, body.Role, Now()); err != nil {
			return nil, err
		}
	}
	if err := a.Members.Claim(ctx, body.Name, KeyHash(peer)); err != nil {
		return nil, err
	}
	grant, err := a.CA.grant(peer.PublicKey, body, a.Members.Servers())
	if err == nil && body.Role == RoleServer && a.SecretsKeys != nil {
		grant.SecretsKeys, err = a.SecretsKeys()
	}
	return grant, err
}

// checkRenewal lets a member renew its own certificate, even an expired one: the key is known, and a device may have been
// off for long.
func (a *Authority) checkRenewal(peer *x509.Certificate, body *joinBody) error {
	if err := peer.CheckSignatureFrom(a.CA.cert); err != nil {
		return fmt.Errorf("%w: the certificate to renew is not of this cluster", ErrTokenUnknown)
	}
	name, ok := body.Role.NameOf(peer)
	if !ok || name != body.Name {
		return fmt.Errorf("%w: the certificate to renew names another member", ErrTokenRole)
	}
	return nil
}

// Grant issues to this server itself, which needs no token.
func (ca *CA) Grant(req JoinRequest) (*Grant, error) {
	return ca.grant(req.Key.Public(), &joinBody{Role: req.Role, Name: req.Name, Address: req.Address, SANs: req.SANs}, nil)
}

func (ca *CA) grant(public crypto.PublicKey, body *joinBody, servers []string) (*Grant, error) {
	names, addresses := splitSANs(append([]string{body.Name, body.Address}, body.SANs...))
	g := &Grant{CA: ca.CertPEM(), Servers: servers}
	subject := NodeSubject(body.Name)
	if body.Role == RoleWitness {
		subject = WitnessSubject(body.Name)
	}
	var err error
	if g.Node, err = ca.Issue(subject, public, names, addresses); err != nil {
		return nil, err
	}
	if body.Role != RoleServer {
		return g, nil
	}
	if g.Server, err = ca.IssueServer(body.Name, public, append([]string{body.Address}, body.SANs...)); err != nil {
		return nil, err
	}
	g.CAKey, err = ca.KeyPEM()
	return g, err
}

// IssueServer certifies a member of the control plane for the names and addresses under which kubectl reaches it. It lasts as
// long as the authority, whose key a server has anyway: one that a server with a wrong clock gave an early end would lock kubectl out.
func (ca *CA) IssueServer(name string, public crypto.PublicKey, sans []string) ([]byte, error) {
	names, addresses := splitSANs(append([]string{name, "localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default.svc"}, sans...))
	return ca.issue(ServerSubject(name), public, names, addresses, ca.cert.NotAfter)
}

func splitSANs(sans []string) (names []string, addresses []net.IP) {
	for _, s := range sans {
		if ip := net.ParseIP(s); ip != nil {
			addresses = append(addresses, ip)
		} else if s != "" {
			names = append(names, s)
		}
	}
	return names, addresses
}

// KeyHash names a device for ever: the hash of its public key.
func KeyHash(cert *x509.Certificate) string { return certHash(cert.RawSubjectPublicKeyInfo) }

// badRequest is a mistake of the asking side.
type badRequest struct{ error }

func joinStatus(err error) int {
	var bad badRequest
	switch {
	case errors.As(err, &bad):
		return http.StatusBadRequest
	case errors.Is(err, ErrTokenUnknown):
		return http.StatusUnauthorized
	case errors.Is(err, ErrTokenExpired), errors.Is(err, ErrTokenRole):
		return http.StatusForbidden
	case errors.Is(err, ErrNameTaken):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A peer that is gone needs no answer.
	_ = json.NewEncoder(w).Encode(body)
}

// Serve answers on Mux.Join until ctx ends.
func (a *Authority) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(joinConn).peer)
		},
	}
	return ServeHTTP(ctx, server, joinListener{l})
}

// peerKey is the context key of the certificate that the peer showed.
type peerKey struct{}

// joinConn hides that the connection is TLS: net/http would drop it for an ALPN protocol that it does not know.
type joinConn struct {
	net.Conn
	peer *x509.Certificate
}

type joinListener struct{ net.Listener }

func (l joinListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return joinConn{conn, conn.(*tls.Conn).ConnectionState().PeerCertificates[0]}, nil
}
