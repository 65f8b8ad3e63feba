package firmware_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/chunks"
	"github.com/shoal-edge/shoal/firmware/firmwaretest"
)

const (
	rootSize    = 200 << 20
	contentSize = 150 << 20
	changedPart = 20 // one byte in so many is in a file that changes
)

// BenchmarkTransfer updates a root file system of 200 MiB, made of this machine's own files, to one in which 5 % of the bytes are in files
// with other content: what comes over the wire, and how much memory that takes.
func BenchmarkTransfer(b *testing.B) {
	dir := b.TempDir()
	tree := filepath.Join(dir, "tree")
	files := gather(b, tree)
	before := makeRoot(b, tree, filepath.Join(dir, "before.img"))
	change(b, tree, files)
	after := makeRoot(b, tree, filepath.Join(dir, "after.img"))
	pack := filepath.Join(dir, "after.pack")
	sum := packFile(b, after, pack)
	var sent atomic.Int64
	server := httptest.NewServer(firmwaretest.Counted(http.FileServer(http.Dir(dir)), &sent))
	b.Cleanup(server.Close)
	artifact := firmwarev1.Artifact{Name: "image", Type: firmwarev1.Image, URL: server.URL + "/after.img", Size: rootSize, SHA256: fileDigest(b, after)}
	inChunks := artifact
	inChunks.Chunks = &firmwarev1.Chunks{URL: server.URL + "/after.pack", Size: sum.Size, IndexSize: sum.IndexSize, IndexSHA256: sum.IndexSHA256}
	empty := filepath.Join(dir, "empty.img")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, running string
		artifact      firmwarev1.Artifact
	}{{"full", before, artifact}, {"chunks/running=nothing", empty, inChunks}, {"chunks/running=before", before, inChunks}} {
		b.Run("form="+c.name, func(b *testing.B) {
			for range b.N {
				sent.Store(0)
				target := filepath.Join(dir, "slot.img")
				if err := os.WriteFile(target, nil, 0o600); err != nil {
					b.Fatal(err)
				}
				base := resident(b, true)
				backend := &pair{path: map[string]string{"a": c.running, "b": target}}
				last := firmwaretest.Download(b, firmware.Config{Backend: backend, Dir: b.TempDir(), HardwareID: "board", BootID: "boot"},
					&firmwarev1.Assignment{ID: "1", Release: "r", Version: "2", Counter: 2, Artifact: c.artifact}, 10*time.Minute)
				if last.State != firmwarev1.Staged {
					b.Fatalf("%s: %s %s", last.State, last.Reason, last.Message)
				}
				b.ReportMetric(float64(resident(b, false)-base)/1e6, "MB-memory")
				b.ReportMetric(float64(sent.Load())/1e6, "MB-wire")
				if got := fileDigest(b, target); got != artifact.SHA256 {
					b.Fatalf("the slot holds %s", got)
				}
			}
		})
	}
	b.Run("form=casync/running=before", func(b *testing.B) { withCasync(b, dir, server.URL, &sent, artifact.SHA256) })
}

// withCasync does the same with Debian's casync, with pieces of its default size (64 KiB) packed by Zstandard.
func withCasync(b *testing.B, dir, url string, sent *atomic.Int64, want string) {
	casync := func(args ...string) {
		cmd := exec.Command("casync", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Skipf("casync: %v: %s", err, out)
		}
	}
	casync("make", "--compression=zstd", "--store=store.castr", "after.caibx", "after.img")
	for range b.N {
		sent.Store(0)
		if err := os.RemoveAll(filepath.Join(dir, "slot.img")); err != nil {
			b.Fatal(err)
		}
		casync("extract", "--seed=before.img", "--store="+url+"/store.castr", url+"/after.caibx", "slot.img")
		b.ReportMetric(float64(sent.Load())/1e6, "MB-wire")
		if got := fileDigest(b, filepath.Join(dir, "slot.img")); got != want {
			b.Fatalf("the slot holds %s", got)
		}
	}
}

// pair is a backend of two files.
type pair struct {
	firmwaretest.Runs
	path map[string]string
}

func (f *pair) Open(_ context.Context, slot string) (firmware.Slot, error) {
	return firmware.OpenSlot(f.path[slot])
}

func (f *pair) Read(_ context.Context, slot string) (firmware.Source, error) {
	return os.Open(f.path[slot])
}

// gather copies files of this machine until there are enough, and returns them.
func gather(b *testing.B, tree string) (files []string) {
	total := int64(0)
	err := filepath.WalkDir("/usr", func(path string, e fs.DirEntry, err error) error {
		if err != nil || total >= contentSize || !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if err != nil || info.Size() > 8<<20 {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		to := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		files, total = append(files, to), total+info.Size()
		return os.WriteFile(to, data, 0o644)
	})
	if err != nil {
		b.Fatal(err)
	}
	if total < contentSize {
		b.Skipf("this machine has only %d bytes of files", total)
	}
	return files
}

// change gives every 20th byte's file other content, a little longer: each byte of it differs, and compresses as before.
func change(b *testing.B, tree string, files []string) {
	var before, changed int64
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		if before += int64(len(data)); changed*changedPart >= before {
			continue
		}
		changed += int64(len(data))
		for i := range data {
			data[i] ^= 0x15
		}
		if err := os.WriteFile(path, append(data, bytes.Repeat([]byte("new"), len(data)/300)...), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("%d files, %d MB, %d MB of them with other content", len(files), before/1e6, changed/1e6)
}

func makeRoot(b *testing.B, tree, to string) string {
	cmd := exec.Command("mkfs.ext4", "-q", "-d", tree, "-U", "7c5a3f0e-5e0b-4a51-8f0c-0d5a7e1f0b11", "-E", "hash_seed=7c5a3f0e-5e0b-4a51-8f0c-0d5a7e1f0b11", to, fmt.Sprint(rootSize>>10))
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	return to
}

func packFile(b *testing.B, image, to string) chunks.Summary {
	in, err := os.Open(image)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	sum, err := chunks.Pack(out, in)
	if err != nil {
		b.Fatal(err)
	}
	if err := out.Close(); err != nil {
		b.Fatal(err)
	}
	return sum
}

func fileDigest(b *testing.B, path string) string {
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		b.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// resident is this process's memory: the present one, and the highest since then.
func resident(b *testing.B, begin bool) int64 {
	field := "VmHWM:"
	if begin {
		debug.FreeOSMemory()
		field = "VmRSS:"
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
			b.Skip(err)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb int64
		if text, ok := strings.CutPrefix(line, field); ok {
			if _, err := fmt.Sscan(text, &kb); err != nil {
				b.Fatal(err)
			}
			return kb << 10
		}
	}
	return 0
}
