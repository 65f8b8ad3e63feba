package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/configs"
)

const (
	// subnet is the benchmark's own 10.77.214.0/24.
	subnet  = 214
	apiPort = "6443"
	// patience bounds every wait for a server.
	patience = time.Minute
)

// servers is a control plane of real processes.
type servers struct {
	*dev.Lab
	tls   *tls.Config
	round int // makes the names of objects differ
}

// need skips a benchmark where it cannot run.
func need(b *testing.B, tools ...string) {
	b.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		b.Skip("makes namespaces: needs root, and no -short")
	}
	for _, tool := range append(tools, "ip", "nft", "nsenter", "catatonit") {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("%v; run make bench", err)
		}
	}
}

// start makes servers that run no pods, and waits until all have a vote.
func start(b *testing.B, size int) *servers {
	b.Helper()
	need(b)
	binary := filepath.Join(b.TempDir(), "shoal")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/shoal").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	socket := noContainerd(b)
	lab, err := dev.New(dev.Config{
		Name: "apibench", Subnet: subnet, Shoal: binary, Servers: size, WithoutContainerd: true, Logger: slog.New(slog.DiscardHandler),
		Edit: func(_ *dev.Device, c *configs.Config) { c.Agent.Containerd, c.Agent.Heartbeat = socket, 0 },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := lab.Close(); err != nil {
			b.Error(err)
		}
	})
	if err := lab.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	for _, d := range lab.Devices() {
		favour(b, d.ShoalPID())
	}
	client, err := kube.Load(lab.Kubeconfig())
	if err != nil {
		b.Fatal(err)
	}
	s := &servers{Lab: lab, tls: client.TLS()}
	s.tls.NextProtos = []string{"http/1.1"}
	for _, d := range lab.Devices() {
		s.await(b, d, fmt.Sprintf("\nshoal_raft_voters %d\n", size))
	}
	return s
}

// favour gives the session of a process this one's autogroup priority. Linux may schedule by sessions first, and each device is
// one: without this, nice make bench on a busy machine would favour the clients alone.
func favour(b *testing.B, pid int) {
	b.Helper()
	own, err := os.ReadFile("/proc/self/autogroup")
	if err != nil {
		return // this kernel has none
	}
	_, nice, _ := strings.Cut(strings.TrimSpace(string(own)), " nice ")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte(nice), 0); err != nil {
		b.Log("no priority: ", err)
	}
}

// noContainerd listens where the servers look for containerd, and says nothing.
func noContainerd(b *testing.B) string {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "cri.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return socket
}

// leader is the server that leads.
func (s *servers) leader(b *testing.B) *dev.Device {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	for {
		for _, d := range s.Devices() {
			if text, err := s.metrics(ctx, d); err == nil && strings.Contains(text, "\nshoal_raft_leader 1\n") {
				return d
			}
		}
		if ctx.Err() != nil {
			b.Fatal("nobody leads")
		}
	}
}

func (s *servers) metrics(ctx context.Context, d *dev.Device) (string, error) {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls}, Timeout: 5 * time.Second}
	defer c.CloseIdleConnections()
	return get(ctx, c, "https://"+net.JoinHostPort(d.Address, apiPort)+"/metrics")
}

// await waits until a server's metrics have a line.
func (s *servers) await(b *testing.B, d *dev.Device, line string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	for {
		text, err := s.metrics(ctx, d)
		if err == nil && strings.Contains(text, line) {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatal(errors.Join(err, fmt.Errorf("%s does not say %q", d.Name, strings.TrimSpace(line))))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
