package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// backdate is how long before now a client's certificate begins to be valid, for clocks that are behind.
const backdate = 5 * time.Minute

// ErrReserved says that a certificate was asked for that would make its bearer a member of the cluster, or its administrator.
var ErrReserved = errors.New("only shoal itself certifies administrators and members of the cluster")

// Reserved reports whether a subject is one that shoal goes by itself: that of a device, of a member of the control plane, or of an
// administrator.
func Reserved(commonName string, organizations []string) bool {
	return strings.HasPrefix(commonName, "system:node:") || strings.HasPrefix(commonName, "system:shoal:") ||
		slices.ContainsFunc(organizations, func(o string) bool {
			return o == "system:masters" || o == "system:nodes" || strings.HasPrefix(o, "system:shoal:")
		})
}

// SignClient certifies the key of a PKCS #10 request (PEM) for clients of the API, for as long as asked, but not longer than the
// authority itself is valid. It fails with ErrReserved for subjects that are not for clients.
func (ca *CA) SignClient(request []byte, usage x509.KeyUsage, life time.Duration) ([]byte, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the request: %w", err)
	}
	if err := asked.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request: %w", err)
	}
	if Reserved(asked.Subject.CommonName, asked.Subject.Organization) {
		return nil, ErrReserved
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: asked.Subject, NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		KeyUsage: usage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		DNSNames: asked.DNSNames, IPAddresses: asked.IPAddresses, EmailAddresses: asked.EmailAddresses, URIs: asked.URIs,
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, asked.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return encodeCert(der), nil
}
