package powercut

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/test/need"
	"github.com/shoal-edge/shoal/test/powercut/disk"
	"github.com/shoal-edge/shoal/test/powercut/isolate"
)

const daemon = "github.com/shoal-edge/shoal/cmd/shoal"

// TestMain runs the tests in namespaces of their own, where they can be.
func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() || isolate.Possible() != nil {
		os.Exit(m.Run()) // only to say what is skipped
	}
	if !isolate.Inside() {
		os.Exit(outside())
	}
	if err := isolate.Settle(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// binaries names the folder of what the tests build.
const binaries = "SHOAL_POWERCUT_BINARIES"

func outside() int {
	dir, err := os.MkdirTemp("", "shoal-powercut-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(binaries, dir)
	return isolate.Again()
}

// newBench skips a test that cannot run here.
func newBench(t *testing.T) *Bench {
	t.Helper()
	if testing.Short() {
		t.Skip("cuts the power of real servers")
	}
	if err := isolate.Possible(); err != nil {
		need.Missing(t, "%v", err)
	}
	bench, err := NewBench()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bench.Close(); err != nil {
			t.Error(err)
		}
	})
	return bench
}

// build builds a program once for all tests.
func build(t *testing.T, pkg, tags string) string {
	t.Helper()
	path := filepath.Join(os.Getenv(binaries), filepath.Base(pkg)+tags)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-tags=grpcnotrace"+tags, "-ldflags=-s -w",
		"-o", path, pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

func newSuite(t *testing.T, tags string) *Suite {
	t.Helper()
	bench := newBench(t)
	suite, err := NewSuite(t.Context(), bench, build(t, daemon, tags))
	if err != nil {
		t.Fatal(err)
	}
	return suite
}

// TestPowerCuts is the short form of make powercut.
func TestPowerCuts(t *testing.T) {
	suite := newSuite(t, "")
	for seed := range uint64(5) {
		r := suite.Episode(t.Context(), seed+1)
		t.Log(r)
		if !r.Passed() {
			t.Errorf("again: make powercut CUTS=1 SEED=%d", r.Seed)
		}
	}
}

// TestForgetfulBuild shows that the harness finds what it is there for: a log store that acknowledges what it has not flushed.
func TestForgetfulBuild(t *testing.T) {
	suite := newSuite(t, ",shoal_nosync")
	const enough = 10
	for seed := range uint64(enough) {
		r := suite.Episode(t.Context(), seed+1)
		t.Log(r)
		if losesWrites(r) {
			return
		}
	}
	t.Errorf("%d cuts of a server that never flushes its log, and nothing was lost", enough)
}

// losesWrites reports whether writes were lost that had been acknowledged: they are not there, or the server has found out by itself that it has less than
// it had, and waits for others who have it. A log that cannot be read at all would not do.
func losesWrites(r Result) bool {
	return len(r.Wrong) > 0 || r.Acks > 0 && r.Err != nil && strings.Contains(r.Err.Error(), "lacks what it may have known")
}

// TestFileSystem makes sure of the ground that all of this stands on: through ext4 and the loop device, what was flushed stays,
// and what was not is lost.
func TestFileSystem(t *testing.T) {
	bench := newBench(t)
	d, err := bench.format(diskSize)
	if err != nil {
		t.Fatal(err)
	}
	kept, lost := bytes.Repeat([]byte("kept"), 5000), bytes.Repeat([]byte("lost"), 5000)
	var dropped bool
	for seed := uint64(0); !dropped; seed++ { // until a cut drops all
		m := bench.machine("", disk.New(d.Content()))
		if err := m.powerOn(); err != nil {
			t.Fatal(err)
		}
		if err := writeFlushed(filepath.Join(m.mount, "kept"), kept); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.mount, "lost"), lost, 0o600); err != nil {
			t.Fatal(err)
		}
		m.disk.PlanCut(1000, newRand(seed, streamCut), nil)
		m.disk.Cut()
		if err := m.dead(); err != nil {
			t.Fatal(err)
		}
		if err := m.powerOn(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(m.mount, "kept")); err != nil || !bytes.Equal(got, kept) {
			t.Errorf("seed %d: %v: what was flushed is not as it was: %v", seed, m.disk.Lost(), err)
		}
		if got, err := os.ReadFile(filepath.Join(m.mount, "lost")); err == nil && bytes.Equal(got, lost) {
			t.Errorf("seed %d: %v: what was never flushed is there", seed, m.disk.Lost())
		}
		dropped = m.disk.Lost().Kept == 0
		if err := m.dead(); err != nil {
			t.Fatal(err)
		}
	}
}

func writeFlushed(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return errors.Join(flush(path), flush(filepath.Dir(path)))
}

// flush makes a file or folder durable.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// TestKilledRun ends a run the hard way: nothing of it may stay.
func TestKilledRun(t *testing.T) {
	_ = newBench(t)
	binary, command := build(t, daemon, ""), build(t, "github.com/shoal-edge/shoal/test/powercut/cmd", "")
	before := inUse(t)
	run := exec.Command(command, "-shoal", binary)
	for _, e := range os.Environ() {
		if e != "SHOAL_POWERCUT_INSIDE=1" {
			run.Env = append(run.Env, e)
		}
	}
	var out syncBuffer
	run.Stdout = &out
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !out.contains("seed 1:"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no cut in a minute")
		}
	}
	if during := inUse(t); during == before {
		t.Errorf("the run has no processes and devices: %s", during)
	}
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait()
	for end := time.Now().Add(10 * time.Second); inUse(t) != before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("before the run: %s; long after its end: %s", before, inUse(t))
		}
	}
}

// inUse counts processes, and the loop devices on our disks.
func inUse(t *testing.T) string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	processes := 0
	for _, path := range stats {
		// Its parent is gone, so that a dead one stays to be waited for.
		if stat, err := os.ReadFile(path); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
			processes++
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, loop := range loops {
		if backing, err := os.ReadFile(loop); err == nil && bytes.Contains(backing, []byte("/disk")) {
			ours++
		}
	}
	return fmt.Sprintf("%d processes, %d loop devices", processes, ours)
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) contains(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Contains(b.buf.Bytes(), []byte(s))
}
