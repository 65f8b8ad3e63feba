// Package site runs a control plane of real processes on the loopback interface, for tests and benchmarks. No pods run on it: where
// a server looks for containerd there is a socket that says nothing.
package site

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/silent"
)

// Patience bounds every wait for a member.
const Patience = time.Minute

// Site is the control plane. The first member founds the cluster.
type Site struct {
	Shoal   string // the binary
	Members []*Member

	tb  testing.TB
	dir string
}

// Member is one process: a server or a witness.
type Member struct {
	Name    string
	Address string // where the others, and clients, reach it
	Process *exec.Cmd

	role, dir string
	health    string // where it tells of its health
	env       []string
}

// New returns a site without members of the given binary. The end of the test ends its processes, and shows the end of their logs
// if the test has failed.
func New(tb testing.TB, shoal string) *Site {
	s := &Site{Shoal: shoal, tb: tb, dir: tb.TempDir()}
	tb.Cleanup(func() {
		for _, m := range s.Members {
			if tb.Failed() {
				log, _ := os.ReadFile(filepath.Join(m.dir, "log"))
				tb.Logf("--- %s\n%s", m.Name, log[max(0, len(log)-4000):])
			}
			m.Kill()
		}
	})
	return s
}

// Add makes a member of a role, server or witness, and starts it; env is added to its environment.
func (s *Site) Add(name, role string, env ...string) *Member {
	s.tb.Helper()
	m := &Member{
		Name: name, Address: FreeAddress(s.tb), role: role, dir: filepath.Join(s.dir, name), health: FreeAddress(s.tb), env: env,
	}
	join := ""
	if len(s.Members) > 0 {
		join = fmt.Sprintf("join: {servers: [%q], token: %q}\n", s.Members[0].Address, s.token(role))
	}
	s.Members = append(s.Members, m)
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		s.tb.Fatal(err)
	}
	config := fmt.Sprintf("nodeName: %s\ndataDir: %s\nadvertiseAddress: 127.0.0.1\nserver: {listen: %q}\n"+
		"agent: {listen: %q, containerd: %s, cniConfDir: %s, registryConfDir: %s, neighbours: {listen: none}}\nlog: {level: %s}\n%s",
		name, m.Data(), m.Address, m.health, quietSocket(s.tb), filepath.Join(m.dir, "cni"), filepath.Join(m.dir, "registries"), s.level(), join)
	if err := os.WriteFile(filepath.Join(m.dir, "config.yaml"), []byte(config), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	s.Run(m)
	return m
}

// level is how much a member logs: in benchmarks next to nothing.
func (s *Site) level() string {
	if _, ok := s.tb.(*testing.B); ok {
		return "error"
	}
	return "info"
}

// token lets a member of a role join.
func (s *Site) token(role string) string {
	s.tb.Helper()
	var out []byte
	Eventually(s.tb, func() (err error) {
		out, err = exec.Command(s.Shoal, "token", "create", "--role", role, "--kubeconfig", s.Members[0].Kubeconfig()).Output()
		return err
	})
	return string(bytes.TrimSpace(out))
}

// Data is a member's data folder.
func (m *Member) Data() string { return filepath.Join(m.dir, "data") }

// Kubeconfig is that of a server's administrator.
func (m *Member) Kubeconfig() string { return filepath.Join(m.Data(), "admin.kubeconfig") }

// Run starts a member's process.
func (s *Site) Run(m *Member) {
	s.tb.Helper()
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	m.Process = exec.Command(s.Shoal, m.role, "--config", filepath.Join(m.dir, "config.yaml"))
	m.Process.Env = append(os.Environ(), m.env...)
	m.Process.Stdout, m.Process.Stderr = log, log
	m.Process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.Process.Start(); err != nil {
		s.tb.Fatal(err)
	}
}

// Anonymous is the memory of a member's process that is not of files, in bytes.
func (m *Member) Anonymous() (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Process.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(status, []byte("\nRssAnon:"))
	text, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
	kilobytes, err := strconv.Atoi(string(text))
	return kilobytes << 10, err
}

// Kill ends a member as a power cut would.
func (m *Member) Kill() {
	if m.Process == nil || m.Process.Process == nil {
		return
	}
	_ = m.Process.Process.Kill()
	_ = m.Process.Wait()
}

// Leader waits for a member that leads.
func (s *Site) Leader() (leader *Member) {
	s.tb.Helper()
	Eventually(s.tb, func() error {
		for _, m := range s.Members {
			if text, err := m.Tell("metrics"); err == nil && strings.Contains(text, "\nshoal_raft_leader 1\n") {
				leader = m
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return leader
}

// Voters waits until every member says that so many have a vote.
func (s *Site) Voters(n int) {
	s.tb.Helper()
	for _, m := range s.Members {
		s.Await(m, "metrics", fmt.Sprintf("\nshoal_raft_voters %d\n", n))
	}
}

// Await waits for what a member says of its health on one of its pages: readyz, livez, metrics.
func (s *Site) Await(m *Member, page, want string) {
	s.tb.Helper()
	Eventually(s.tb, func() error {
		text, err := m.Tell(page)
		if err == nil && !strings.Contains(text, want) {
			err = fmt.Errorf("%s does not say %q", m.Name, strings.TrimSpace(want))
		}
		return err
	})
}

// Tell asks a member about its health.
func (m *Member) Tell(page string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + m.health + "/" + page)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s says %s", m.Name, answer.Status)
	}
	return string(body), err
}

// Eventually repeats try until it succeeds.
func Eventually(tb testing.TB, try func() error) {
	tb.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatal(err)
		}
	}
}

// FreeAddress is one that nobody listens at.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func quietSocket(tb testing.TB) string {
	tb.Helper()
	socket := filepath.Join(tb.TempDir(), "cri.sock")
	l, err := silent.Listen(socket)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return socket
}
