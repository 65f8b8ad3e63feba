package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/test/powercut/disk"
)

// rig is a machine whose disk gets into trouble.
type rig struct {
	*testing.T
	*Machine
	ledger *ledger
	count  int
}

func newRig(t *testing.T, size int64) *rig {
	t.Helper()
	bench := newBench(t)
	d, err := bench.format(size)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, Machine: bench.machine(build(t, daemon, ""), d), ledger: newLedger()}
	t.Cleanup(func() {
		if err := r.dead(); err != nil {
			t.Error(err)
		}
	})
	r.boot()
	return r
}

func (r *rig) boot() {
	r.Helper()
	if err := r.powerOn(); err != nil {
		r.Fatal(err)
	}
	if err := r.start(); err != nil {
		r.Fatal(err)
	}
	have, err := r.ready(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	r.compare(have)
}

func (r *rig) compare(have map[string]object) {
	r.Helper()
	for _, wrong := range r.ledger.check(have) {
		r.Error(wrong)
	}
}

// put makes a new object.
func (r *rig) put(size int) error {
	r.count++
	name, o := fmt.Sprintf("o-%d", r.count), object{value: strings.Repeat("x", size)}
	ctx, cancel := context.WithTimeout(r.Context(), 15*time.Second)
	defer cancel()
	r.ledger.trying(name, o)
	got, err := write(ctx, r.server.kube, http.MethodPost, name, o)
	if err == nil {
		r.ledger.acknowledged(name, got)
	}
	return err
}

// mustLive fails the test when the server has ended or has panicked.
func (r *rig) mustLive() {
	r.Helper()
	if !r.server.alive() || r.server.log.panicked() {
		r.Fatalf("the server has ended (%v):\n%s", r.server.cmd.ProcessState, r.server.log)
	}
}

// mustRefuse writes until a write is refused, and looks at how.
func (r *rig) mustRefuse() error {
	r.Helper()
	for range 2000 {
		err := r.put(2000)
		r.mustLive()
		if err == nil {
			continue
		}
		if status := apierrors.APIStatus(nil); !errors.As(err, &status) {
			r.Errorf("a write on a disk that takes none ends with %v (%T)", err, err)
		} else {
			r.Logf("refused: %d %s: %v", status.Status().Code, status.Status().Reason, err)
		}
		return err
	}
	r.Fatal("the disk takes everything")
	return nil
}

// mustResume waits until writes are taken again.
func (r *rig) mustResume(limit time.Duration) {
	r.Helper()
	began := time.Now()
	for {
		err := r.put(100)
		r.mustLive()
		if err == nil {
			r.Logf("writes are taken again after %v", time.Since(began))
			return
		}
		if time.Since(began) > limit {
			r.Fatalf("after %v writes are still refused: %v\n%s", limit, err, r.server.log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (r *rig) mustRead() {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	have, err := list(ctx, r.server.kube)
	r.mustLive()
	if err != nil {
		r.Errorf("read: %v", err)
		return
	}
	r.compare(have)
}

// fill takes all space that is left on the disk.
func (r *rig) fill() (free func()) {
	r.Helper()
	path := filepath.Join(r.mount, "filler")
	f, err := os.Create(path)
	if err != nil {
		r.Fatal(err)
	}
	for _, size := range []int{1 << 20, 4096, 512} {
		b := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			r.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		r.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Remove(path), flush(r.mount)); err != nil {
			r.Error(err)
		}
	}
}

// TestFullDisk fills a small disk: writes are refused, reads go on, and when space returns so do writes.
func TestFullDisk(t *testing.T) {
	r := newRig(t, 16<<20)
	for range 20 {
		if err := r.put(1000); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		free := r.fill()
		r.mustSayFull()
		time.Sleep(3 * time.Second) // longer than elections and retries
		r.mustSayFull()
		free()
		r.mustResume(5 * time.Second)
	}
	// A server that starts on a full disk votes with the room that it has in reserve, reads, and goes on when there is space.
	free := r.fill()
	r.mustSayFull()
	if err := r.server.killed(); err != nil {
		t.Fatal(err)
	}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	if err := r.readable(); err != nil {
		t.Fatal(err)
	}
	r.mustSay("shoal_raft_leader 1", 5*time.Second)
	r.mustSayFull()
	free()
	r.mustResume(5 * time.Second)
	r.mustRead()
	r.mustHold("reserve", 30*time.Second)
	r.cutAndBoot()
}

// TestLogStaysOnASmallDisk writes many times what a small disk holds: the log is cut behind the checkpoints, and nothing fills up.
func TestLogStaysOnASmallDisk(t *testing.T) {
	r := newRig(t, 16<<20)
	const objects, size, total = 8, 100 << 10, 64 << 20
	for i := range total / size {
		name := fmt.Sprintf("o-%d", i%objects)
		method := http.MethodPut
		if i < objects {
			method = http.MethodPost
		}
		o := object{value: strings.Repeat(string(rune('a'+i%26)), size)}
		r.ledger.trying(name, o)
		got, err := write(t.Context(), r.server.kube, method, name, o)
		if err != nil {
			t.Fatalf("after %d MiB: %v", i*size>>20, err)
		}
		r.ledger.acknowledged(name, got)
	}
	r.mustRead()
	r.cutAndBoot()
}

// mustSay waits until the server's metrics have a line.
func (r *rig) mustSay(line string, limit time.Duration) {
	r.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		response, err := r.server.kube.Stream(r.Context(), http.MethodGet, "/metrics", nil, 0)
		if err == nil {
			text, err := io.ReadAll(response.Body)
			if err = errors.Join(err, response.Body.Close()); err == nil && strings.Contains(string(text), "\n"+line+"\n") {
				return
			}
		}
		r.mustLive()
		if time.Now().After(end) {
			r.Fatalf("its metrics do not say %q: %v", line, err)
		}
	}
}

// mustHold waits until a file is in the folder of the log.
func (r *rig) mustHold(file string, limit time.Duration) {
	r.Helper()
	path := filepath.Join(r.dataDir(), "raft", file)
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		} else if time.Now().After(end) {
			r.Fatal(err)
		}
	}
}

// mustSayFull wants a refusal that says why, and reads that go on.
func (r *rig) mustSayFull() {
	r.Helper()
	var status apierrors.APIStatus
	if err := r.mustRefuse(); !errors.As(err, &status) || status.Status().Code != http.StatusInsufficientStorage {
		r.Errorf("a full disk makes a write end with %v", err)
	}
	r.mustRead()
}

// readable waits until a server that cannot be written to can be read.
func (r *rig) readable() error {
	if err := r.server.connect(r.dataDir()); err != nil {
		return err
	}
	var err error
	for end := time.Now().Add(readyLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r.mustLive()
		var have map[string]object
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		have, err = list(ctx, r.server.kube)
		cancel()
		if err == nil {
			r.compare(have)
			return nil
		}
	}
	return fmt.Errorf("not readable in %v: %w\n%s", readyLimit, err, r.server.log)
}

// cutAndBoot cuts the power, and turns it on again.
func (r *rig) cutAndBoot() {
	r.Helper()
	r.count++
	r.disk.PlanCut(1<<30, newRand(uint64(r.count), streamCut), r.server.kill)
	r.disk.Cut()
	if err := r.dead(); err != nil {
		r.Fatal(err)
	}
	r.disk.Break(disk.Healthy)
	r.boot()
}

// TestFlakyDisk has a disk that refuses writes for a moment. The kernel then shows pages that the disk does not have; a server
// that goes on with those loses data at the next power cut.
func TestFlakyDisk(t *testing.T) {
	r := newRig(t, diskSize)
	resumed := 0
	for round := range 6 {
		for range 20 {
			if err := r.put(1000); err != nil {
				t.Fatal(err)
			}
		}
		r.disk.Break(disk.WritesFail)
		_ = r.mustRefuse()
		time.Sleep(time.Duration(round) * 50 * time.Millisecond)
		r.disk.Break(disk.Healthy)
		// The file system may have made itself read-only: then only a boot helps.
		if err := writeFlushed(filepath.Join(r.mount, "probe"), []byte("probe")); err == nil {
			r.mustResume(10 * time.Second)
			r.mustRead()
			resumed++
		}
		r.cutAndBoot()
	}
	if resumed == 0 {
		t.Error("the file system never survived: the test has tested nothing")
	}
}

// TestBrokenDisk has a disk that takes no more writes, or nothing at all: the server refuses writes and acknowledges none; after a
// boot with a disk that works again, everything acknowledged is there.
func TestBrokenDisk(t *testing.T) {
	for name, fault := range map[string]disk.Fault{"writes": disk.WritesFail, "all": disk.NothingGoes} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, diskSize)
			for range 20 {
				if err := r.put(1000); err != nil {
					t.Fatal(err)
				}
			}
			r.disk.Break(fault)
			_ = r.mustRefuse()
			time.Sleep(3 * time.Second) // longer than elections and retries
			_ = r.mustRefuse()
			if err := r.server.stop(); err != nil { // in order, though the disk is as it is
				t.Error(err)
			}
			r.cutAndBoot()
		})
	}
}
