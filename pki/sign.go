package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// Signer signs messages with an identity's key and checks those of peers that have a role. It is for links whose TLS ends
// before the peer, at somebody else's broker.
type Signer struct {
	id    *Identity
	peers Role
}

// Signer returns one for talking to peers of a role.
func (id *Identity) Signer(peers Role) *Signer { return &Signer{id: id, peers: peers} }

// Sign returns the certificate (DER) and an ECDSA signature (ASN.1) over the message's SHA-256.
func (s *Signer) Sign(message []byte) (cert, signature []byte, err error) {
	pair := s.id.cert.Load()
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("the identity's key cannot sign")
	}
	digest := sha256.Sum256(message)
	signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:])
	return pair.Leaf.Raw, signature, err
}

// Verify checks that a message was signed by a peer of the role, with a certificate of this cluster. It returns the peer's
// name and the whole name in its certificate.
func (s *Signer) Verify(cert, message, signature []byte) (name, principal string, err error) {
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		return "", "", fmt.Errorf("the peer's certificate: %w", err)
	}
	if err := s.id.verify(leaf); err != nil {
		return "", "", fmt.Errorf("the peer's certificate: %w", err)
	}
	if err := expired(leaf); err != nil {
		return "", "", err
	}
	name, ok := s.peers.NameOf(leaf)
	if !ok {
		return "", "", fmt.Errorf("the peer %q is not a %s of this cluster", leaf.Subject.CommonName, s.peers)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	digest := sha256.Sum256(message)
	if !ok || !ecdsa.VerifyASN1(key, digest[:], signature) {
		return "", "", fmt.Errorf("the signature of %q is wrong", leaf.Subject.CommonName)
	}
	return name, leaf.Subject.CommonName, nil
}
