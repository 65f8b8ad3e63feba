// Command guest is all that runs on the virtual board besides the kernel and shoal: the program of the initial RAM disk, which mounts the
// slot, the first process of a slot, and, by the name systemctl, what restarts the device. What a bad release does wrong is in the
// slot's file /behaviour.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/test/silent"
)

// Where a board is, by QEMU's user networking, and the partitions of its disk.
const (
	address = "10.0.2.15/24"
	gateway = "10.0.2.2"
	data    = "/dev/vda4"
)

var slots = map[string]string{"a": "/dev/vda2", "b": "/dev/vda3"} //nolint:gochecknoglobals // a constant that Go has no form for

func main() {
	log.SetFlags(0)
	log.SetPrefix("guest: ")
	var err error
	switch {
	case filepath.Base(os.Args[0]) == "systemctl":
		unix.Sync()
		err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case exists("/modules"):
		err = stageOne()
	default:
		err = stageTwo()
	}
	log.Print(err) // the first process must not end: the kernel panics then, and restarts
	time.Sleep(time.Second)
	os.Exit(1)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// stageOne mounts the slot that the boot loader has chosen, and goes on with what is in it.
func stageOne() error {
	if err := mountKernel(); err != nil {
		return err
	}
	list, err := os.ReadFile("/modules")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		if err := insert(filepath.Join("/lib", name)); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	slot, err := booted()
	if err != nil {
		return err
	}
	if err := retry(func() error { return unix.Mount(slots[slot], "/root", "ext4", unix.MS_RDONLY, "") }); err != nil {
		return fmt.Errorf("mount slot %s: %w", slot, err)
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(dir, "/root"+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := errors.Join(unix.Chdir("/root"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return err
	}
	return unix.Exec("/init", []string{"/init"}, os.Environ())
}

func mountKernel() error {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}

func insert(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// retry waits for a device that the kernel has not found yet.
func retry(try func() error) (err error) {
	for range 100 {
		if err = try(); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func booted() (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	_, slot, ok := strings.Cut(strings.TrimSpace(string(line)), "shoal.slot=")
	if !ok || slots[slot] == "" {
		return "", fmt.Errorf("the command line names no slot: %s", line)
	}
	return slot, nil
}

// stageTwo is the first process of a slot.
func stageTwo() error {
	behaviour, err := os.ReadFile("/behaviour")
	if err != nil {
		return err
	}
	does := strings.TrimSpace(string(behaviour))
	slot, err := booted()
	if err != nil {
		return err
	}
	log.Printf("slot %s has started: a release that is %s", slot, does)
	pets, err := os.OpenFile("/dev/watchdog", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	switch does {
	case "a panic":
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "a hang":
		select {} // nobody pets the watchdog
	}
	go func() {
		for {
			_, _ = pets.Write([]byte("."))
			time.Sleep(time.Second)
		}
	}()
	for _, dir := range []string{"/tmp", "/run"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
	}
	if err := unix.Mount(data, "/data", "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount the data: %w", err)
	}
	if err := network(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	go answer(does)
	if _, err := silent.Listen("/run/none.sock"); err != nil {
		return err
	}
	return agent()
}

// network brings up the board's link, and forwards what the device sends to the server's address, which is its own loopback to it, to
// the machine around it.
func network() error {
	for name, addr := range map[string]string{"lo": "127.0.0.1/8", "eth0": address} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		parsed, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, parsed); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	port, err := os.ReadFile("/data/port")
	if errors.Is(err, fs.ErrNotExist) {
		return route() // the configuration names an address that can be reached
	}
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
	if err != nil {
		return err
	}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go forward(near, net.JoinHostPort(gateway, strings.TrimSpace(string(port))))
		}
	}()
	return nil
}

// route has everything else go through the machine around the board.
func route() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)})
}

func forward(near net.Conn, to string) {
	defer func() { _ = near.Close() }()
	far, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	go func() {
		_, _ = io.Copy(far, near)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
}

// answer is what the rollout's health check asks.
func answer(does string) {
	log.Print(http.ListenAndServe("127.0.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if does != "good" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})))
}

// agent runs shoal, and starts it again whenever it ends, as systemd does. Its log goes to the console, line by line.
func agent() error {
	for {
		cmd := exec.Command("/bin/shoal", "agent", "--config", "/data/config.yaml")
		cmd.Env = []string{"PATH=/bin", "HOME=/tmp"}
		out, err := cmd.StderrPipe()
		if err != nil {
			return err
		}
		cmd.Stdout = cmd.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			log.Print(lines.Text())
		}
		err = cmd.Wait()
		log.Print("shoal has ended: ", err)
		for { // whatever it has left behind
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
		time.Sleep(time.Second)
	}
}
