package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is a control plane of real processes on loopback: two servers and a witness. No pods run on it.
type site struct {
	t     *testing.T
	dir   string
	shoal string
	names []string // of its members
	roles map[string]string
	ports map[string]string   // where each is reached
	diag  map[string]string   // where each tells of its health
	env   map[string][]string // added to the environment of each
	runs  map[string]*exec.Cmd
}

func newSite(t *testing.T) *site {
	shoal, err := filepath.Abs("../../bin/shoal")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{
		t: t, dir: t.TempDir(), shoal: shoal, roles: map[string]string{}, ports: map[string]string{}, diag: map[string]string{},
		runs: map[string]*exec.Cmd{},
	}
	t.Cleanup(func() {
		for _, name := range s.names {
			if t.Failed() {
				log, _ := os.ReadFile(s.path(name, "log"))
				t.Logf("--- %s\n%s", name, log[max(0, len(log)-4000):])
			}
			s.kill(name)
		}
	})
	return s
}

func (s *site) path(name string, more ...string) string {
	return filepath.Join(append([]string{s.dir, name}, more...)...)
}

// add makes a member and starts it.
func (s *site) add(name, role, join string) {
	s.t.Helper()
	s.names = append(s.names, name)
	s.roles[name], s.ports[name], s.diag[name] = role, freeAddress(s.t), freeAddress(s.t)
	if err := os.MkdirAll(s.path(name), 0o700); err != nil {
		s.t.Fatal(err)
	}
	config := fmt.Sprintf("nodeName: %s\ndataDir: %s\nadvertiseAddress: 127.0.0.1\nserver: {listen: %q}\n"+
		"agent: {listen: %q, containerd: %s, cniConfDir: %s, registryConfDir: %s}\n%s",
		name, s.path(name, "data"), s.ports[name], s.diag[name], quietSocket(s.t), s.path(name, "cni"), s.path(name, "registries"), join)
	if err := os.WriteFile(s.path(name, "config.yaml"), []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run(name)
}

// join is the part of a configuration with which a member of a role joins.
func (s *site) join(role string) string {
	s.t.Helper()
	var out []byte
	s.eventually(time.Minute, func() (err error) {
		out, err = exec.Command(s.shoal, "token", "create", "--role", role, "--kubeconfig", s.path("server-1", "data", "admin.kubeconfig")).Output()
		return err
	})
	return fmt.Sprintf("join: {servers: [%q], token: %q}\n", s.ports["server-1"], bytes.TrimSpace(out))
}

func (s *site) run(name string) {
	s.t.Helper()
	log, err := os.OpenFile(s.path(name, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(s.shoal, s.roles[name], "--config", s.path(name, "config.yaml"))
	cmd.Env = append(os.Environ(), s.env[name]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.runs[name] = cmd
}

// kill ends a member as a power cut would.
func (s *site) kill(name string) {
	if cmd := s.runs[name]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		delete(s.runs, name)
	}
}

// leader is the member that leads.
func (s *site) leader() (leader string) {
	s.t.Helper()
	s.eventually(time.Minute, func() error {
		for _, name := range s.names {
			if text, err := s.tell(name, "metrics"); err == nil && strings.Contains(text, "\nshoal_raft_leader 1\n") {
				leader = name
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return leader
}

func (s *site) others(than string) []string {
	return slices.DeleteFunc(slices.Clone(s.names), func(name string) bool { return name == than })
}

// write creates a ConfigMap at a server, as soon as there is a leader.
func (s *site) write(at, name string) {
	s.t.Helper()
	if err := s.tryWrite(at, name, time.Minute); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) tryWrite(at, name string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for {
		out, err := s.kubectl(ctx, at, "create", "configmap", name)
		if err == nil || strings.Contains(out, "AlreadyExists") {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("create %s at %s: %w: %s", name, at, err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *site) kubectl(ctx context.Context, at string, args ...string) (string, error) {
	kubectl, err := filepath.Abs("../../bin/kubectl")
	if err != nil {
		return "", err
	}
	args = append([]string{"--kubeconfig", s.path(at, "data", "admin.kubeconfig"), "--request-timeout=5s"}, args...)
	out, err := exec.CommandContext(ctx, kubectl, args...).CombinedOutput()
	return string(out), err
}

// holds reports whether a member's data folder has some text in it.
func (s *site) holds(name, text string) (found bool) {
	err := filepath.WalkDir(s.path(name, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return found
}

// await waits for what a member says of its health.
func (s *site) await(name, page, want string) {
	s.t.Helper()
	s.eventually(time.Minute, func() error {
		text, err := s.tell(name, page)
		if err == nil && !strings.Contains(text, want) {
			err = fmt.Errorf("%s does not say %q", name, strings.TrimSpace(want))
		}
		return err
	})
}

// tell asks a member about its health.
func (s *site) tell(name, page string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + s.diag[name] + "/" + page)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s says %s", name, answer.Status)
	}
	return string(body), err
}

func (s *site) eventually(patience time.Duration, try func() error) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// quietSocket listens where a server looks for containerd, and says nothing.
func quietSocket(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "cri.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
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
