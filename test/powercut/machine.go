// Package powercut proves that a server loses nothing when its power fails: the real binary keeps its data on an ext4 whose disk
// forgets, at a moment drawn from a seed, what was not flushed. Then the power comes back, and everything that was acknowledged
// must be there without anybody's help.
//
// Package disk has the disk, package isolate the namespaces that a run lives in. A run needs root and /dev/fuse.
package powercut

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/test/powercut/disk"
	"github.com/shoal-edge/shoal/test/powercut/isolate"
	"github.com/shoal-edge/shoal/test/silent"
)

// Machine is a computer whose disk can lose power: one at a time in a run.
type Machine struct {
	binary string
	export *disk.Export
	disk   *disk.Disk
	mount  string
	file   string     // the disk's file while the power is on
	loop   *disk.Loop // likewise
	server *server
}

// Bench is where machines are put together.
type Bench struct {
	export     *disk.Export
	exportDir  string
	mount      string
	containerd net.Listener
}

// NewBench prepares a run inside its own namespaces.
func NewBench() (*Bench, error) {
	b := &Bench{exportDir: filepath.Join(isolate.Scratch, "disks"), mount: filepath.Join(isolate.Scratch, "root")}
	for _, dir := range []string{b.exportDir, b.mount} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if b.containerd, err = silent.Listen(containerdSocket()); err != nil {
		return nil, err
	}
	b.export, err = disk.Mount(b.exportDir)
	return b, err
}

// containerdSocket is where a server finds somebody who answers, but runs no containers: its first start wants that.
func containerdSocket() string { return filepath.Join(isolate.Scratch, "containerd.sock") }

// Close ends the bench; every machine must be off.
func (b *Bench) Close() error {
	return errors.Join(b.containerd.Close(), b.export.Unmount(), os.Remove(b.exportDir), os.Remove(b.mount))
}

// machine is a computer that runs a binary from a disk; it is off.
func (b *Bench) machine(binary string, d *disk.Disk) *Machine {
	return &Machine{binary: binary, export: b.export, disk: d, mount: b.mount}
}

// format makes a disk with an empty file system.
func (b *Bench) format(size int64) (*disk.Disk, error) {
	d := disk.New(make([]byte, size))
	m := b.machine("", d)
	if err := m.plugIn(); err != nil {
		return nil, err
	}
	out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
		m.loop.Path).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	err = errors.Join(err, m.pullOut())
	d.Off()
	return d, err
}

func (m *Machine) dataDir() string { return filepath.Join(m.mount, "shoal") }

// plugIn turns the disk's power on and makes it a block device.
func (m *Machine) plugIn() (err error) {
	if m.file, err = m.export.Add(m.disk.PowerOn()); err != nil {
		return err
	}
	m.loop, err = disk.Attach(m.file)
	return err
}

func (m *Machine) pullOut() (err error) {
	if m.loop != nil {
		err = m.loop.Release()
		m.loop = nil
	}
	m.export.Remove(m.file)
	return err
}

// powerOn mounts the file system; the kernel replays its journal.
func (m *Machine) powerOn() error {
	if err := m.plugIn(); err != nil {
		return errors.Join(err, m.pullOut())
	}
	if err := unix.Mount(m.loop.Path, m.mount, "ext4", unix.MS_NOATIME, ""); err != nil {
		return errors.Join(fmt.Errorf("mount %s: %w", m.loop.Path, err), m.pullOut())
	}
	return nil
}

// start starts the server as a user would.
func (m *Machine) start() (err error) {
	m.server, err = startServer(m.binary, m.dataDir(), "")
	return err
}

// startSoon starts the server so that it does not wait long for others before it leads, to save time.
func (m *Machine) startSoon() (err error) {
	m.server, err = startServer(m.binary, m.dataDir(), ", electionTimeout: 100ms")
	return err
}

// ready waits for the server and returns what objects it has.
func (m *Machine) ready(ctx context.Context) (map[string]object, error) {
	return m.server.ready(ctx, m.dataDir())
}

// dead cleans up after a power cut, or ends the machine as one would have.
func (m *Machine) dead() error {
	var err error
	if m.server != nil {
		err = m.server.killed()
		m.server = nil
	}
	if m.loop == nil {
		return err
	}
	if unmountErr := disk.Unmount(m.mount); unmountErr != nil {
		err = errors.Join(err, unmountErr, unix.Unmount(m.mount, unix.MNT_DETACH))
	}
	return errors.Join(err, m.pullOut())
}

// shutDown ends the machine in order.
func (m *Machine) shutDown() error {
	err := m.server.stop()
	m.server = nil
	err = errors.Join(err, disk.Unmount(m.mount), m.pullOut())
	m.disk.Off()
	return err
}

// setAside finds files that the server put away because it could not trust them.
func (m *Machine) setAside() ([]string, error) {
	var found []string
	err := filepath.WalkDir(m.dataDir(), func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), ".damaged") {
			found = append(found, path)
		}
		return err
	})
	return found, err
}
