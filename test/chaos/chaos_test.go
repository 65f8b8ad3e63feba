package chaos

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/test/need"
)

// TestMain lets the test binary play the part of a run that is killed.
func TestMain(m *testing.M) {
	if binary := os.Getenv("SHOAL_CHAOS_TO_KILL"); binary != "" {
		beKilled(binary)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// needs is what every test of faults needs.
func needs(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes namespaces: not with -short")
	}
	need.Root(t)
	for _, tool := range []string{"ip", "nft", "nsenter", "catatonit"} {
		need.Command(t, tool)
	}
}

// built are the binaries, made once for all tests.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// binaries builds the product as it is and with failpoints.
func binaries(t *testing.T) (product, failpoints string) {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "shoal-chaos-bin-"); built.err != nil {
			return
		}
		for name, tags := range map[string]string{"shoal": "grpcnotrace", "shoal-failpoints": "grpcnotrace,shoal_failpoints"} {
			build := exec.Command("go", "build", "-tags", tags, "-o", filepath.Join(built.dir, name), "../../cmd/shoal")
			if out, err := build.CombinedOutput(); err != nil {
				built.err = fmt.Errorf("build %s: %w\n%s", name, err, out)
				return
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "shoal"), filepath.Join(built.dir, "shoal-failpoints")
}

// TestChaos is the short form of make chaos: 20 episodes, half of them with failpoints.
func TestChaos(t *testing.T) {
	needs(t)
	product, failpoints := binaries(t)
	cfg := Config{
		Name: "chaost", Subnet: 212, Shoal: product, Failpoints: failpoints, Seed: 0, Episodes: 2 * block, Short: true,
		Evidence: filepath.Join("..", "..", ".build", "chaos"), Out: logWriter{t}, Logger: slog.New(slog.DiscardHandler),
	}
	passed, failed, err := Run(t.Context(), cfg)
	if err != nil || failed > 0 || passed != cfg.Episodes {
		t.Errorf("%d passed, %d failed, %v", passed, failed, err)
	}
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSuffix(p, []byte("\n"))))
	return len(p), nil
}

// TestStaleReadIsCaught shows that the checker sees through a client that reads an old state from a server that is cut off and
// takes it for the present; and that the servers do not do so by themselves.
func TestStaleReadIsCaught(t *testing.T) {
	needs(t)
	product, _ := binaries(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := newCluster(ctx, "chaosr", 213, 3, product, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	h := &history{since: c.since, name: "stale"}
	w := newWorker(1, 1, c, h)
	leader := c.leader(ctx)
	for leader == nil && ctx.Err() == nil {
		leader = c.leader(ctx)
	}
	follower := (leader.index + 1) % 3
	do := func(server int, o Op) Op {
		o.Client, o.Server, o.Key = 1, server, "stale-k"
		return w.do(o, 0)
	}
	if o := do(leader.index, Op{Kind: Create, Value: "stale-1"}); o.Result != Done {
		t.Fatal(o)
	}
	if o := do(follower, Op{Kind: Get}); o.Got != "stale-1" {
		t.Fatal(o)
	}
	if _, err := c.network.add(ctx, between([]int{follower}, []int{leader.index, (leader.index + 2) % 3}, 100)...); err != nil {
		t.Fatal(err)
	}
	if o := do(leader.index, Op{Kind: Put, Value: "stale-2"}); o.Result != Done {
		t.Fatal(o)
	}
	if o := do(follower, Op{Kind: Get}); o.Result == Done && o.Got != "stale-2" {
		t.Errorf("a server that is cut off answers: %s", o)
	}
	if verdict, _ := checkLinearizable(h.ops, time.Minute); verdict != porcupine.Ok {
		t.Errorf("the honest history is %s", verdict)
	}
	lie := Op{Client: 1, Server: follower, Kind: Get, Key: "stale-k", Call: c.since()}
	var got thing
	code, reason, err := c.servers[follower].admin.do(ctx, http.MethodGet, configMaps+"/stale-k?resourceVersion=0", nil, &got)
	if err != nil || code != http.StatusOK || got.Data["value"] != "stale-1" {
		t.Fatalf("the server that is cut off has no old state to read: %d %s %v %v", code, reason, err, got)
	}
	lie.Return = c.since()
	lie.Result, lie.Revision, lie.Got = Done, got.revision(), got.Data["value"]
	if verdict, _ := checkLinearizable(append(h.ops, lie), time.Minute); verdict != porcupine.Illegal {
		t.Errorf("a stale read makes the history %s", verdict)
	}
}

// TestFailpointsAreNotInTheProduct looks for what only the test build has.
func TestFailpointsAreNotInTheProduct(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the daemon")
	}
	product, failpoints := binaries(t)
	for binary, want := range map[string]bool{product: false, failpoints: true} {
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(data, []byte("SHOAL_FAILPOINT_FILE")); got != want {
			t.Errorf("%s has failpoints: %t", filepath.Base(binary), got)
		}
	}
}

// beKilled makes a cluster of which one server is stopped, and waits for its end.
func beKilled(binary string) {
	c, err := newCluster(context.Background(), "chaosk", 214, 1, binary, false, slog.New(slog.DiscardHandler))
	if err == nil {
		err = syscall.Kill(c.servers[0].ShoalPID(), syscall.SIGSTOP)
	}
	fmt.Println("made", err)
	select {}
}

// TestNothingIsLeftAfterAKill kills a run, and lets the next of its name clean up.
func TestNothingIsLeftAfterAKill(t *testing.T) {
	needs(t)
	product, _ := binaries(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command(self)
	run.Env = append(os.Environ(), "SHOAL_CHAOS_TO_KILL="+product)
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "made <nil>\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait()
	c, err := newCluster(t.Context(), "chaosk", 214, 1, product, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	dir, work := c.lab.Dir(), c.work
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{dir, work} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	if _, err := net.InterfaceByName("shoal-chaosk"); err == nil {
		t.Error("the link is left")
	}
}

// TestPlan checks that a seed always means the same.
func TestPlan(t *testing.T) {
	kinds := map[string]int{}
	for seed := range uint64(400) {
		for _, set := range []settings{short(), long()} {
			a, b := newPlan(seed, set), newPlan(seed, set)
			describe := func(p *plan) (all []string) {
				for _, s := range p.steps {
					all = append(all, fmt.Sprint(p, p.load, s.after, s.hold, s.fault.name, s.seed))
				}
				return all
			}
			if diff := cmp.Diff(describe(a), describe(b)); diff != "" {
				t.Fatal(diff)
			}
			for _, s := range a.steps {
				kinds[s.fault.name]++
				if !s.fault.fits(a) || s.after > a.load {
					t.Errorf("%s: %s after %s of %s", a, s.fault.name, s.after, a.load)
				}
			}
		}
	}
	for _, f := range faults() {
		if kinds[f.name] == 0 {
			t.Errorf("no seed brings %q", f.name)
		}
	}
}
