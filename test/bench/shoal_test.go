package bench

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/test/site"
)

// cluster is a control plane of real processes, and what its clients need.
type cluster struct {
	*site.Site
	tls   *tls.Config
	round int // makes the names of objects differ
}

// start makes servers and waits until all have a vote.
func start(b *testing.B, size int) *cluster {
	b.Helper()
	need(b, "ip")
	binary := filepath.Join(b.TempDir(), "shoal-bench")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/shoal").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	c := &cluster{Site: site.New(b, binary)}
	for i := range size {
		c.Add(fmt.Sprintf("server-%d", i), "server")
	}
	c.Voters(size)
	client, err := kube.Load(c.Members[0].Kubeconfig())
	if err != nil {
		b.Fatal(err)
	}
	c.tls = client.TLS()
	c.tls.NextProtos = []string{"http/1.1"}
	return c
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
	for _, m := range c.Members {
		dir := fmt.Sprintf("/proc/%d/", m.Process.Process.Pid)
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
