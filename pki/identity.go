package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"
)

// Identity is one key with its certificate and the authority that it trusts. The certificate can be renewed while
// connections use it.
type Identity struct {
	caPEM []byte
	roots *x509.CertPool
	cert  atomic.Pointer[tls.Certificate]
}

// NewKey makes a private key for an identity.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// NewIdentity puts an identity together from PEM forms.
func NewIdentity(caPEM, certPEM []byte, key *ecdsa.PrivateKey) (*Identity, error) {
	id := &Identity{caPEM: caPEM, roots: x509.NewCertPool()}
	if !id.roots.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("there is no CA certificate")
	}
	if err := id.Replace(certPEM, key); err != nil {
		return nil, err
	}
	return id, nil
}

// Replace renews the certificate: new connections use it.
func (id *Identity) Replace(certPEM []byte, key *ecdsa.PrivateKey) error {
	leaf, err := parseCert(certPEM)
	if err != nil {
		return err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("the certificate is for another key")
	}
	// An end that has passed is no reason: with it the device asks for the next one, and its clock may be wrong.
	if err := id.verify(leaf); err != nil {
		return err
	}
	ca, err := parseCert(id.caPEM)
	if err != nil {
		return err
	}
	// The authority goes along: a joining device knows it by its hash only.
	id.cert.Store(&tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key, Leaf: leaf})
	return nil
}

// CAPEM is the certificate of the authority.
func (id *Identity) CAPEM() []byte { return id.caPEM }

// CAHash is the authority's hash as join tokens carry it.
func (id *Identity) CAHash() string {
	cert, err := parseCert(id.caPEM)
	if err != nil {
		return ""
	}
	return certHash(cert.Raw)
}

// Leaf is the present certificate.
func (id *Identity) Leaf() *x509.Certificate { return id.cert.Load().Leaf }

// RenewAt is when two thirds of the certificate's year have gone.
func (id *Identity) RenewAt() time.Time { return id.Leaf().NotAfter.Add(-leafLife / 3) }

// verify reports whether the authority signed a certificate, whatever the time is.
func (id *Identity) verify(leaf *x509.Certificate) error {
	_, err := leaf.Verify(x509.VerifyOptions{Roots: id.roots, CurrentTime: Floor, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

// Load reads the identity called name from a folder: name.crt and name.key, and ca.crt beside them. The error is
// fs.ErrNotExist (wrapped) when there is none yet.
func Load(dir, name string) (*Identity, error) {
	caPEM, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	certPEM, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return nil, err
	}
	key, err := LoadKey(dir, name)
	if err != nil {
		return nil, err
	}
	id, err := NewIdentity(caPEM, certPEM, key)
	if err != nil {
		return nil, fmt.Errorf("identity %s in %s: %w", name, dir, err)
	}
	return id, nil
}

// LoadKey reads name.key from a folder.
func LoadKey(dir, name string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, name+".key")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// LoadOrMakeKey reads name.key from a folder, or makes it. A device's key is its identity and is made once.
func LoadOrMakeKey(dir, name string) (*ecdsa.PrivateKey, error) {
	key, err := LoadKey(dir, name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = NewKey(); err != nil {
		return nil, err
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, Write(dir, name+".key", data, 0o600)
}

// SavePair writes name.key and name.crt into a folder.
func SavePair(dir, name string, certPEM []byte, key *ecdsa.PrivateKey) error {
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := Write(dir, name+".key", keyPEM, 0o600); err != nil {
		return err
	}
	return Write(dir, name+".crt", certPEM, 0o644)
}

// LoadCA reads the authority of a server from a folder.
func LoadCA(dir string) (*CA, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	return ParseCA(certPEM, keyPEM)
}

// Save writes the authority into a folder, the key readable by root alone.
func (ca *CA) Save(dir string) error {
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	// The certificate last: a folder with it has everything.
	if err := Write(dir, "ca.key", keyPEM, 0o600); err != nil {
		return err
	}
	return Write(dir, "ca.crt", ca.CertPEM(), 0o644)
}

// Dial opens a TLS connection to a server of the cluster and checks that it is one. Addresses are hints that change, so
// the server's role counts, not the name in its certificate. alpn names the protocol.
func (id *Identity) Dial(ctx context.Context, address, alpn string) (*tls.Conn, error) {
	return dial(ctx, address, newDialer(), id.ClientConfig(alpn))
}

// DialLink is Dial for a device's link: its connections find out that the server is gone as p says.
func (id *Identity) DialLink(ctx context.Context, address, alpn string, p Probing) (*tls.Conn, error) {
	return dial(ctx, address, newProbingDialer(p), id.ClientConfig(alpn))
}

func dial(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (*tls.Conn, error) {
	conn, err := (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// DialNamed opens a TLS connection to a peer that is not of the cluster, such as a message broker: its certificate is for the
// host of the address and from one of the roots.
func (id *Identity) DialNamed(ctx context.Context, address string, roots *x509.CertPool, alpn string, p Probing) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return dial(ctx, address, newProbingDialer(p), &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{alpn}, Time: Now, RootCAs: roots, ServerName: host,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.cert.Load(), nil },
	})
}

// ClientConfig is the TLS configuration for reaching a server of the cluster, or, by ProtoRaft, also a witness. It does not ask
// whether their certificates have ended: see expired.
func (id *Identity) ClientConfig(alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: alpn,
		Time:       aFixedTime,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.cert.Load(), nil
		},
		InsecureSkipVerify: true, // the chain and the role are checked below, the name is not
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			if err := id.verify(leaf); err != nil {
				return err
			}
			_, isServer := ServerName(leaf)
			_, isWitness := WitnessName(leaf)
			if !isServer && (!isWitness || !slices.Equal(alpn, []string{ProtoRaft})) {
				return fmt.Errorf("the peer %q is not a server of this cluster", leaf.Subject.CommonName)
			}
			return nil
		},
	}
}
