package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
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

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
)

// patience bounds every wait for a server.
const patience = time.Minute

// cluster is a control plane of real processes. No pods run on it.
type cluster struct {
	dir     string
	binary  string
	members []*member
	tls     *tls.Config
	round   int // makes the names of objects differ
}

// member is one server.
type member struct {
	address string
	config  string
	process *exec.Cmd
}

// start makes servers and waits until all have a vote.
func start(b *testing.B, size int) *cluster {
	b.Helper()
	need(b, "ip")
	c := &cluster{dir: b.TempDir()}
	c.binary = filepath.Join(c.dir, "shoal-bench")
	if out, err := exec.Command("go", "build", "-o", c.binary, "../../cmd/shoal").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	join := ""
	for i := range size {
		m := &member{address: freeAddress(b), config: filepath.Join(c.dir, fmt.Sprintf("%d.yaml", i))}
		c.members = append(c.members, m)
		if err := os.WriteFile(m.config, []byte(c.configOf(b, i)+join), 0o600); err != nil {
			b.Fatal(err)
		}
		c.run(b, m)
		if i == 0 {
			c.admin(b)
			join = fmt.Sprintf("join: {servers: [%q], token: %q}\n", m.address, c.token(b))
		}
	}
	b.Cleanup(func() {
		for _, m := range c.members {
			m.kill()
		}
	})
	for _, m := range c.members {
		c.await(b, m, fmt.Sprintf("\nshoal_raft_voters %d\n", size))
	}
	return c
}

func (c *cluster) configOf(b *testing.B, i int) string {
	return fmt.Sprintf(`nodeName: server-%d
dataDir: %s
advertiseAddress: 127.0.0.1
server: {listen: %q}
agent: {containerd: %s, listen: %q, cniConfDir: %s, registryConfDir: %s}
log: {level: error}
`, i, c.data(i), c.members[i].address, noContainerd(b), freeAddress(b), c.data(i)+"/cni", c.data(i)+"/registries")
}

func (c *cluster) data(i int) string       { return filepath.Join(c.dir, fmt.Sprint(i)) }
func (c *cluster) adminKubeconfig() string { return filepath.Join(c.data(0), "admin.kubeconfig") }

// run starts a server's process.
func (c *cluster) run(b *testing.B, m *member) {
	b.Helper()
	m.process = exec.Command(c.binary, "server", "--config", m.config)
	m.process.Stderr = os.Stderr
	m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		b.Fatal(err)
	}
}

func (m *member) kill() {
	_ = m.process.Process.Kill()
	_ = m.process.Wait()
}

// admin waits for the first server's kubeconfig and reads it.
func (c *cluster) admin(b *testing.B) {
	b.Helper()
	var client *kube.Client
	eventually(b, func() (err error) {
		client, err = kube.Load(c.adminKubeconfig())
		return err
	})
	c.tls = client.TLS()
	c.tls.NextProtos = []string{"http/1.1"}
}

func (c *cluster) token(b *testing.B) string {
	b.Helper()
	var token string
	eventually(b, func() error {
		out, err := exec.Command(c.binary, "token", "create", "--role", "server", "--kubeconfig", c.adminKubeconfig()).Output()
		token = string(bytes.TrimSpace(out))
		return err
	})
	return token
}

// noContainerd listens where a server looks for containerd, and says nothing.
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

// await waits until a server's metrics have a line.
func (c *cluster) await(b *testing.B, m *member, line string) {
	b.Helper()
	eventually(b, func() error {
		text, err := c.metrics(b.Context(), m)
		if err == nil && !strings.Contains(text, line) {
			err = fmt.Errorf("%s does not say %q", m.address, strings.TrimSpace(line))
		}
		return err
	})
}

// leader is the server that leads.
func (c *cluster) leader(b *testing.B) (leader *member) {
	b.Helper()
	eventually(b, func() error {
		for _, m := range c.members {
			if text, err := c.metrics(b.Context(), m); err == nil && strings.Contains(text, "\nshoal_raft_leader 1\n") {
				leader = m
				return nil
			}
		}
		return fmt.Errorf("nobody leads")
	})
	return leader
}

func (c *cluster) metrics(ctx context.Context, m *member) (string, error) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.tls}, Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	return get(ctx, client, "https://"+m.address+"/metrics")
}

// usage is what processes have used since their start.
type usage struct {
	cpu     time.Duration // of all servers
	written int64         // bytes, by the server that has written most
}

// used reads it from /proc.
func (c *cluster) used(b *testing.B) (sum usage) {
	b.Helper()
	const tick = 10 * time.Millisecond // the unit in /proc
	for _, m := range c.members {
		dir := fmt.Sprintf("/proc/%d/", m.process.Process.Pid)
		stat, err := os.ReadFile(dir + "stat")
		if err != nil {
			b.Fatal(err)
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, field := range fields[11:13] { // user and system
			n, _ := strconv.ParseInt(field, 10, 64)
			sum.cpu += time.Duration(n) * tick
		}
		io, err := os.ReadFile(dir + "io")
		if err != nil {
			b.Fatal(err)
		}
		_, rest, _ := bytes.Cut(io, []byte("\nwrite_bytes: "))
		text, _, _ := bytes.Cut(rest, []byte("\n"))
		n, _ := strconv.ParseInt(string(text), 10, 64)
		sum.written = max(sum.written, n)
	}
	return sum
}

// eventually repeats try until it succeeds.
func eventually(b *testing.B, try func() error) {
	b.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

func freeAddress(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
