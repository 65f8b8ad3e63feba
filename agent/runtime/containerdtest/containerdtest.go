// Package containerdtest owns containerds for tests: each with its own folders, socket and network namespace, gone with
// the test.
package containerdtest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/agent/runtime/containerd"
	"github.com/shoal-edge/shoal/agent/runtime/cri"
	"github.com/shoal-edge/shoal/agent/runtime/image"
	"github.com/shoal-edge/shoal/network"
	"github.com/shoal-edge/shoal/test/need"
)

// Image is a busybox image that every Daemon has.
const Image = "shoal.dev/test/busybox:1"

// CgroupParent is where tests put their pods.
const CgroupParent = "/shoaltest"

// Daemon is one running containerd.
type Daemon struct {
	Dir, Socket, CNIConfDir, RegistryDir string
	Runtime                              *cri.Runtime

	config string
	cmd    *exec.Cmd
	out    bytes.Buffer
}

// Start starts a containerd that ends with the test. It skips the test where that cannot work.
func Start(t testing.TB) *Daemon {
	t.Helper()
	if testing.Short() {
		t.Skip("needs containerd")
	}
	need.Root(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("apt-get install busybox-static: %v", err)
	}
	// A short path: a socket's has at most 107 characters.
	dir, err := os.MkdirTemp("", "shoal")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Dir: dir, Socket: dir + "/c.sock", CNIConfDir: dir + "/net.d", RegistryDir: dir + "/certs.d", config: dir + "/config.toml"}
	t.Cleanup(func() { d.clean(t) })
	c := containerd.Config{Root: dir + "/root", State: dir + "/state", Socket: d.Socket, CNIConfDir: d.CNIConfDir, RegistryDir: d.RegistryDir, RestrictOOMScore: true}
	d.write(t, d.config, []byte(c.TOML()))
	conflist, err := network.Conflist("shoal0", dir+"/cni", 0, []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, filepath.Join(d.CNIConfDir, network.CNIFile), conflist)
	d.Up(t)

	d.Runtime, err = cri.New(cri.Config{Socket: d.Socket, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d.Await(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.Runtime.EnsureSandboxImage(ctx); err != nil {
		t.Fatal(err)
	}
	img, err := image.Build(image.Config{Ref: Image, Files: tools(busybox), Cmd: []string{"/bin/sleep", "3600"}, Env: []string{"PATH=/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Runtime.Import(ctx, img); err != nil {
		t.Fatal(err)
	}
	return d
}

func tools(busybox []byte) []image.File {
	files := []image.File{{Path: "/bin/busybox", Content: busybox}, {Path: "/tmp/.keep", Mode: 0o644}}
	for _, name := range []string{"sh", "sleep", "cat", "echo", "ls", "id", "env", "touch", "test", "httpd", "wget", "true", "false", "kill", "readlink"} {
		files = append(files, image.File{Path: "/bin/" + name, Link: "/bin/busybox"})
	}
	return files
}

// Up starts the daemon's process in a network namespace of its own. After Down, containers are found again, but new pods
// get another namespace's bridge.
func (d *Daemon) Up(t testing.TB) {
	t.Helper()
	d.cmd = exec.Command("/bin/sh", "-c", "ip link set lo up && exec containerd --config "+d.config)
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Listen listens on a free port of the loopback address in the daemon's network namespace.
func (d *Daemon) Listen(t testing.TB) net.Listener { return d.ListenAt(t, "127.0.0.1:0") }

// ListenAt listens on an address in the daemon's network namespace, which is another one after each Up.
func (d *Daemon) ListenAt(t testing.TB, address string) net.Listener {
	t.Helper()
	var listener net.Listener
	d.Inside(t, func() error {
		var err error
		listener, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// Inside calls f in the daemon's network namespace: sockets that it makes itself, in no other goroutine, belong there.
func (d *Daemon) Inside(t testing.TB, f func() error) {
	t.Helper()
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	own, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = own.Close() }()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	err = f()
	if backErr := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); backErr != nil {
		t.Fatal(backErr) // the thread stays where it is, and goes with the test
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Down ends the daemon's process at once; containers go on.
func (d *Daemon) Down() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// Await returns when containerd answers and has a network.
func (d *Daemon) Await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		info, err := d.Runtime.Info(ctx)
		if err == nil && info.Ready && info.NetworkReady {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("containerd does not become ready: %v %+v\n%s", err, info, d.out.String())
		}
		time.Sleep(20 * time.Millisecond) // the daemon tells nobody when it is ready
	}
}

func (d *Daemon) write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// clean removes the pods, the process, its mounts and its folders.
func (d *Daemon) clean(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if d.Runtime != nil {
		pods, err := d.Runtime.Pods(ctx)
		if err != nil {
			t.Errorf("clean up: %v\n%s", err, d.out.String())
		}
		for _, p := range pods {
			for _, s := range p.Sandboxes {
				if err := d.Runtime.StopSandbox(ctx, s.ID); err != nil {
					t.Errorf("clean up: %v", err)
				}
				if err := d.Runtime.RemoveSandbox(ctx, s.ID); err != nil {
					t.Errorf("clean up: %v", err)
				}
			}
		}
		_ = d.Runtime.Close()
	}
	if d.cmd != nil {
		d.Down()
	}
	if t.Failed() {
		t.Logf("containerd's log:\n%s", d.out.String())
	}
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + CgroupParent)
	for _, root := range append(roots, "/sys/fs/cgroup"+CgroupParent) {
		_ = os.Remove(root) // empty by now, or another test's
	}
	for _, m := range mountsBelow(d.Dir) {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
	if err := os.RemoveAll(d.Dir); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

// mountsBelow lists mount points below a folder, the innermost first.
func mountsBelow(dir string) []string {
	data, err := fs.ReadFile(os.DirFS("/proc/self"), "mounts")
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			found = append(found, f[1])
		}
	}
	slices.Reverse(found)
	return found
}
