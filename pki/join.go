package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// JoinRequest is what a device asks with.
type JoinRequest struct {
	Servers []string // host:port
	Token   Token
	Role    Role
	Name    string
	Address string
	SANs    []string
	Key     *ecdsa.PrivateKey
}

// ErrRefused says that the cluster answered and said no: asking again does not help.
var ErrRefused = errors.New("the cluster refused")

var errWrongCA = errors.New("the server's CA does not match the token's: it belongs to another cluster; check join.servers, or make a token there")

// Join asks the servers in turn, following them to their leader, until one answers or ctx ends. The device shows a
// self-signed certificate of its key from the first byte, and checks the server's chain against the token's CA hash.
func Join(ctx context.Context, req JoinRequest) (*Grant, error) {
	body := joinBody{
		TokenID: req.Token.ID, TokenSecret: req.Token.Secret,
		Role: req.Role, Name: req.Name, Address: req.Address, SANs: req.SANs,
	}
	cert, err := selfSigned(req.Key, req.Name)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ProtoJoin},
		// Certificates would be held back, as the server names CAs that did not sign it.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
		InsecureSkipVerify:   true, // the pin below is the check
		VerifyConnection: func(state tls.ConnectionState) error {
			return checkPin(state, req.Token.CAHash)
		},
	}
	return ask(ctx, config, req.Servers, pathJoin, &body)
}

// Renew asks for a new certificate for the identity's own key.
func Renew(ctx context.Context, id *Identity, req JoinRequest) (*Grant, error) {
	config := id.ClientConfig(ProtoJoin)
	return ask(ctx, config, req.Servers, pathRenew, &joinBody{Role: req.Role, Name: req.Name, Address: req.Address, SANs: req.SANs})
}

// checkPin verifies that the server's certificate was signed by a CA with the given hash. The server sends its CA along.
func checkPin(state tls.ConnectionState, hash string) error {
	for _, candidate := range state.PeerCertificates[1:] {
		if certHash(candidate.Raw) != hash {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(candidate)
		leaf := state.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: Floor}); err != nil {
			return err
		}
		if _, ok := ServerName(leaf); !ok {
			return errors.New("the peer is not a server")
		}
		return nil
	}
	return errWrongCA
}

// ask goes round the servers with growing pauses.
func ask(ctx context.Context, config *tls.Config, servers []string, path string, body *joinBody) (*Grant, error) {
	if len(servers) == 0 {
		return nil, errors.New("there is no server to ask; set join.servers")
	}
	var last error
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 15*time.Second) {
		for _, server := range servers {
			grant, err := askFollowing(ctx, config, server, path, body)
			if err == nil {
				return grant, nil
			}
			if errors.Is(err, ErrRefused) || errors.Is(err, errWrongCA) {
				return nil, err
			}
			last = err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("no server answered: %w", last)
		}
	}
}

// askFollowing asks one server, and its leader if it names one.
func askFollowing(ctx context.Context, config *tls.Config, server, path string, body *joinBody) (*Grant, error) {
	grant, leader, err := askOne(ctx, config, server, path, body)
	if leader != "" {
		grant, _, err = askOne(ctx, config, leader, path, body)
	}
	return grant, err
}

func askOne(ctx context.Context, config *tls.Config, server, path string, body *joinBody) (grant *Grant, leader string, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext:    (&tls.Dialer{Config: config}).DialContext,
	}
	client := &http.Client{Transport: transport, Timeout: 15 * time.Second}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+server+path, bytes.NewReader(data))
	if err != nil {
		return nil, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = response.Body.Close() }()
	answer := io.LimitReader(response.Body, maxBody)
	if response.StatusCode == http.StatusOK {
		grant = new(Grant)
		return grant, "", json.NewDecoder(answer).Decode(grant)
	}
	var no refusal
	if err := json.NewDecoder(answer).Decode(&no); err != nil {
		return nil, "", fmt.Errorf("%s: %s", server, response.Status)
	}
	if response.StatusCode == http.StatusMisdirectedRequest {
		return nil, no.Leader, fmt.Errorf("%s: %s", server, no.Error)
	}
	if response.StatusCode >= 400 && response.StatusCode < 500 {
		return nil, "", fmt.Errorf("%w: %s", ErrRefused, no.Error)
	}
	return nil, "", fmt.Errorf("%s: %s", server, no.Error)
}

// selfSigned is a certificate with which a device proves that it holds its key.
func selfSigned(key *ecdsa.PrivateKey, name string) (tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "joining:" + name},
		NotBefore:    notBefore,
		NotAfter:     Now().Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
