package pki

import (
	"encoding/base64"
	"fmt"
)

// Kubeconfig is the text of a kubeconfig for a certificate, PEM in and YAML out.
func Kubeconfig(server string, caPEM, certPEM, keyPEM []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: shoal
contexts:
- name: shoal
  context:
    cluster: shoal
    user: shoal-admin
clusters:
- name: shoal
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: shoal-admin
  user:
    client-certificate-data: %s
    client-key-data: %s
`, server, b64(caPEM), b64(certPEM), b64(keyPEM))
}

// IssueAdmin makes a kubeconfig of an administrator with a fresh key.
func (ca *CA) IssueAdmin(server string) ([]byte, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	certPEM, err := ca.Issue(AdminSubject(), key.Public(), nil, nil)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return Kubeconfig(server, ca.CertPEM(), certPEM, keyPEM), nil
}
