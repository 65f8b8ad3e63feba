package logstore

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/test/powercut/disk"
)

// diskSize is that of the file system that a log is measured on.
const diskSize = 512 << 20

// volume is a file system on a disk of its own, so that the kernel counts what reaches the disk, the file system's own writes too.
type volume struct {
	dir  string
	stat string
}

// newVolume makes an empty ext4, as on an SD card. It needs root.
func newVolume(t testing.TB) *volume {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a disk")
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	loop, err := disk.Attach(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(loop.Path, dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		t.Fatal(err, loop.Release())
	}
	t.Cleanup(func() {
		if err := disk.Unmount(dir); err != nil {
			t.Error(err)
		}
		if err := loop.Release(); err != nil {
			t.Error(err)
		}
	})
	return &volume{dir: dir, stat: fmt.Sprintf("/sys/block/%s/stat", filepath.Base(loop.Path))}
}

// usage is what the disk has done.
type usage struct{ bytes, flushes int64 }

// Fields of a disk's statistics, and the size of what the kernel calls a sector there.
const (
	fieldSectors = 6
	fieldFlushes = 15
	statSector   = 512
)

func (v *volume) usage(t testing.TB) (u usage) {
	t.Helper()
	text, err := os.ReadFile(v.stat)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) <= fieldFlushes {
		t.Fatalf("the kernel does not count flushes: %s", text)
	}
	number := func(i int) int64 {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return usage{bytes: number(fieldSectors) * statSector, flushes: number(fieldFlushes)}
}

// size is how much of the disk the files in a folder take.
func (v *volume) size(t testing.TB) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(v.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil {
			return err
		}
		bytes += s.Blocks * statSector
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}
