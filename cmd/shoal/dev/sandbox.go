package dev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// sandbox is a set of namespaces and the init process that holds them.
type sandbox struct {
	name  string
	pid   int
	cmd   *exec.Cmd
	power io.Closer // closing it, or the end of this process, ends the init and thereby everything in the sandbox
	ended chan struct{}
}

// initScript prepares the namespaces: private mounts, a /proc of its own processes and, as after a power cut, an empty /run.
// /sys stays: a fresh one would hide the cgroups from runc. catatonit reaps orphans; read waits for the end of standard input.
const initScript = `set -e
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
hostname "$1"
ip link set lo up
echo up
exec catatonit -- sh -c 'read _ || exit 0'`

func newSandbox(st *state, name string) (*sandbox, error) {
	cmd := exec.Command("/bin/sh", "-c", initScript, "sh", name)
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		Setsid:     true,
	}
	power, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr complaint
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	b := &sandbox{name: name, pid: cmd.Process.Pid, cmd: cmd, power: power, ended: make(chan struct{})}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	go func() {
		defer close(b.ended)
		_ = cmd.Wait()
	}()
	if readErr != nil || line != "up\n" {
		return nil, errors.Join(fmt.Errorf("make namespaces: %s", stderr.String()), b.kill())
	}
	if err := st.add(name, b.pid); err != nil {
		return nil, errors.Join(err, b.kill())
	}
	return b, nil
}

// kill ends everything in the sandbox and waits for it: the kernel lets an init go only after all of its namespace.
func (b *sandbox) kill() error {
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill init: %w", err)
	}
	_ = b.power.Close()
	select {
	case <-b.ended:
		return nil
	case <-time.After(startLimit):
		return fmt.Errorf("processes of %s are still there %s after their kill", b.name, startLimit)
	}
}

// command prepares a command that runs inside, in a session of its own, so that Ctrl-C at the terminal does not reach it.
func (b *sandbox) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	full := append([]string{"-t", strconv.Itoa(b.pid), "-m", "-p", "-n", "-u", "--", name}, args...)
	cmd := exec.CommandContext(ctx, tool("nsenter"), full...)
	cmd.Env = environment()
	cmd.Dir = "/"
	// nsenter stops together with its child. Stopped, it would survive the lab's owner, and the child's remains hold up the
	// end of the namespaces; so it gets a signal that needs no consent.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	// nsenter forks to enter the pid namespace, so the end of ctx has to reach its child.
	cmd.Cancel = func() error {
		if child := childOf(cmd.Process.Pid); child != 0 {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		return cmd.Process.Kill()
	}
	cmd.WaitDelay = time.Second
	return cmd
}

// process is a long-running process inside a sandbox.
type process struct {
	pid   int
	ended chan struct{}
}

// start runs a command inside with its output appended to a file, and finds its pid. It outlives ctx.
func (b *sandbox) start(ctx context.Context, logFile, name string, args ...string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o755); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := b.command(context.WithoutCancel(ctx), name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Start()
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	p := &process{ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	// nsenter forks to enter the pid namespace; its one child is the process.
	err = wait(ctx, func() error {
		if !p.running() {
			return fmt.Errorf("%w: %s ended at once; see %s", errFinal, name, logFile)
		}
		p.pid = childOf(cmd.Process.Pid)
		if p.pid == 0 {
			return fmt.Errorf("%s did not start", name)
		}
		return nil
	})
	return p, err
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) kill() error {
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %d: %w", p.pid, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(startLimit):
		return fmt.Errorf("process %d is still there %s after its kill", p.pid, startLimit)
	}
}

// errFinal marks an error that waiting longer does not mend.
var errFinal = errors.New("gave up")

// wait repeats try until it succeeds, fails for good, or startLimit is over.
func wait(ctx context.Context, try func() error) error {
	deadline := time.Now().Add(startLimit)
	for {
		err := try()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errFinal):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("waited %s: %w", startLimit, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
