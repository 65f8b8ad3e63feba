package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"testing"
	"time"
)

func request(t *testing.T, subject pkix.Name) []byte {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestSignClient(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	made, err := ca.SignClient(request(t, pkix.Name{CommonName: "ann", Organization: []string{"dev"}}), x509.KeyUsageDigitalSignature, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := parseCert(made)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate serves")
	}
	if leaf.Subject.CommonName != "ann" || leaf.IsCA || time.Until(leaf.NotAfter) > time.Hour {
		t.Errorf("%+v", leaf.Subject)
	}
	for _, subject := range []pkix.Name{
		NodeSubject("n"), ServerSubject("s"), WitnessSubject("w"),
		{CommonName: "x", Organization: []string{"system:masters"}},
		{CommonName: "system:node:n"},
		{CommonName: "x", Organization: []string{"dev", "system:nodes"}},
	} {
		if _, err := ca.SignClient(request(t, subject), 0, time.Hour); !errors.Is(err, ErrReserved) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	for _, bad := range []string{"", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", string(ca.CertPEM())} {
		if _, err := ca.SignClient([]byte(bad), 0, time.Hour); err == nil {
			t.Errorf("%q was signed", bad)
		}
	}
	long, err := ca.SignClient(request(t, pkix.Name{CommonName: "ann"}), 0, 200*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = parseCert(long); err != nil || leaf.NotAfter.After(ca.cert.NotAfter) {
		t.Errorf("%v: outlives the authority", err)
	}
}
