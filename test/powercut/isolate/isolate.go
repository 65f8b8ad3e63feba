// Package isolate runs a program once more inside namespaces of its own: nothing that it mounts, listens on or starts is seen
// outside or outlives it, however it ends.
package isolate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside is set in the environment of the second run.
const inside = "SHOAL_POWERCUT_INSIDE"

// Scratch is a folder in memory that only the second run sees.
const Scratch = "/mnt"

// Inside says whether this is the second run.
func Inside() bool { return os.Getenv(inside) != "" }

// Possible says why the program cannot be run in namespaces here, if it cannot.
func Possible() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	for _, device := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(device); err != nil {
			return err
		}
	}
	return nil
}

// Again runs this program again with the same arguments, in its own process, mount and network namespaces, and returns its exit
// status. When this process dies, the kernel ends the other one, all that it started, and its mounts.
func Again() int {
	runtime.LockOSThread() // the kernel ends the other one when this thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "run in own namespaces:", err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may just have ended
		}
	}()
	_ = cmd.Wait() // ProcessState tells
	return max(cmd.ProcessState.ExitCode(), -cmd.ProcessState.ExitCode())
}

// Settle prepares the namespaces; the second run calls it first.
func Settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", Scratch, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", Scratch, err)
	}
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	return nil
}
