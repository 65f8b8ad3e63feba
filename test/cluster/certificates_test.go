package cluster

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/pki"
)

// TestClientsGetCertificates asks for a certificate, has it approved, and speaks to the API with it.
func TestClientsGetCertificates(t *testing.T) {
	c := start(t, 1, 0)
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ann"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "ann"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{"client auth", "digital signature"},
	}}
	c.do(http.MethodPost, path, r, r)
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: "Approved", Status: "True", Reason: "Test", Message: "yes"}}
	c.do(http.MethodPut, path+"/ann/approval", r, r)
	c.eventually("the certificate is there", func() error {
		c.do(http.MethodGet, path+"/ann", nil, r)
		if len(r.Status.Certificate) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	block, _ := pem.Decode(r.Status.Certificate)
	mine := []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}
	server := c.fleet.Members()[0]
	if code, text := c.as(server, mine, "", http.MethodGet, "/api/v1/nodes", ""); code != http.StatusForbidden || !strings.Contains(text, `User \"ann\"`) {
		t.Errorf("%d %s", code, text)
	}
}
