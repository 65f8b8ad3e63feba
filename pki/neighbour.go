package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// NeighbourServer is the TLS configuration with which a device lets in other devices of its cluster, those of the names that admit
// says yes to.
func (id *Identity) NeighbourServer(admit func(node string) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, Time: aFixedTime, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.cert.Load(), nil },
		ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: id.roots,
		VerifyConnection: func(state tls.ConnectionState) error { return checkNode(state.PeerCertificates[0], admit) },
	}
}

// NeighbourClient is the TLS configuration for reaching the device of that name. Its address is a hint, so the name counts.
func (id *Identity) NeighbourClient(node string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, Time: aFixedTime,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.cert.Load(), nil },
		InsecureSkipVerify:   true, // the chain and the name are checked below
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			if err := id.verify(leaf); err != nil {
				return err
			}
			return checkNode(leaf, func(name string) bool { return name == node })
		},
	}
}

func checkNode(leaf *x509.Certificate, admit func(node string) bool) error {
	name, isNode := NodeName(leaf)
	if !isNode || !admit(name) {
		return fmt.Errorf("%q is not a neighbour", leaf.Subject.CommonName)
	}
	return expired(leaf)
}
