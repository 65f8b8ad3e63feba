// Package upstream runs Kubernetes' own API server, built from the module of the version that is served, for comparisons. make upstream
// builds it.
package upstream

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/test/site"
)

// Server is kube-apiserver with an etcd of its own. It trusts no certificate but those of its own authority.
type Server struct {
	Address string
	// TLS is that of an administrator. It takes any certificate of the server's, which makes its own.
	TLS       *tls.Config
	Processes []int

	tb  testing.TB
	dir string
}

// Missing tells why there can be no Server of the binary; nil if there can.
func Missing(binary string) error {
	if _, err := os.Stat(binary); err != nil {
		return fmt.Errorf("%w; run make upstream", err)
	}
	_, err := exec.LookPath("etcd")
	return err
}

// Start starts one, with the authorization that the default configuration has and no service accounts: another process makes those. It ends with the
// test.
func Start(tb testing.TB, binary string) *Server {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	s := &Server{Address: site.FreeAddress(tb), tb: tb, dir: tb.TempDir()}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	ca, err := pki.NewCA()
	must(err)
	key, err := pki.NewKey()
	must(err)
	private, err := pemOf(key)
	must(err)
	admin, err := ca.IssueAdmin("https://" + s.Address)
	must(err)
	must(os.WriteFile(in("admin"), admin, 0o600))
	must(os.WriteFile(in("ca.crt"), ca.CertPEM(), 0o600))
	must(os.WriteFile(in("sa.key"), private, 0o600))
	etcd := site.FreeAddress(tb)
	_, port, err := net.SplitHostPort(s.Address)
	must(err)
	must(s.run("etcd", "--data-dir", in("etcd"), "--log-level", "error", "--listen-client-urls", "http://"+etcd,
		"--advertise-client-urls", "http://"+etcd, "--listen-peer-urls", "http://"+site.FreeAddress(tb)))
	must(s.run(binary, "--etcd-servers", "http://"+etcd, "--bind-address", "127.0.0.1", "--advertise-address", "192.0.2.1",
		"--endpoint-reconciler-type", "none", "--secure-port", port,
		"--cert-dir", s.dir, "--client-ca-file", in("ca.crt"), "--authorization-mode", "Node,RBAC",
		"--service-cluster-ip-range", "10.43.0.0/16", "--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", in("sa.key"), "--service-account-signing-key-file", in("sa.key"),
		"--disable-admission-plugins", "ServiceAccount"))
	client, err := kube.Load(in("admin"))
	must(err)
	s.TLS = client.TLS()
	s.TLS.NextProtos, s.TLS.InsecureSkipVerify, s.TLS.VerifyConnection = []string{"http/1.1"}, true, nil
	s.await("/api/v1/namespaces/default")
	return s
}

// await waits until a request is answered.
func (s *Server) await(path string) {
	s.tb.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.TLS, DisableKeepAlives: true}}
	site.Eventually(s.tb, func() error {
		answer, err := client.Get("https://" + s.Address + path)
		if err != nil {
			return err
		}
		defer func() { _ = answer.Body.Close() }()
		_, _ = io.Copy(io.Discard, answer.Body) // its status is all that matters
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", path, answer.Status)
		}
		return nil
	})
}

func pemOf(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

// run starts a process, which ends with the test.
func (s *Server) run(program string, args ...string) error {
	log, err := os.Create(filepath.Join(s.dir, filepath.Base(program)+".log"))
	if err != nil {
		return err
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); s.tb.Failed() && err == nil {
			s.tb.Logf("--- %s\n%s", program, text[max(0, len(text)-2000):])
		}
	})
	s.Processes = append(s.Processes, cmd.Process.Pid)
	return nil
}
