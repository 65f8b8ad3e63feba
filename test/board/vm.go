package board

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// UBoot is Debian's U-Boot for QEMU's arm64 board.
const UBoot = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"

// vm is one time that the board has power.
type vm struct {
	cmd     *exec.Cmd
	console *console
	power   context.Context //nolint:containedctx // of the process
	off     context.CancelFunc
}

// context ends when QEMU does.
func (v *vm) context() context.Context { return v.power }

// start gives the board power. Its disk is a file.
func start(diskFile string) (*vm, error) {
	v := &vm{console: &console{}}
	v.power, v.off = context.WithCancel(context.Background())
	v.cmd = exec.Command("qemu-system-aarch64",
		"-M", "virt", "-cpu", "cortex-a72", "-m", "512", "-nographic", "-bios", UBoot, "-nodefaults", "-serial", "stdio",
		"-drive", "file="+diskFile+",format=raw,if=none,id=disk,cache=writeback,file.locking=off", "-device", "virtio-blk-pci,drive=disk",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-device", "i6300esb", "-action", "watchdog=reset")
	v.cmd.Stdout, v.cmd.Stderr = v.console, v.console
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = v.cmd.Wait() // it is killed
		v.off()
	}()
	return v, nil
}

// kill takes the power away. What QEMU has not written to the disk is lost.
func (v *vm) kill() error {
	_ = v.cmd.Process.Kill()
	select {
	case <-v.power.Done():
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("QEMU does not end: %s", v.console)
	}
}

// console keeps the end of what the board says.
type console struct {
	mu   sync.Mutex
	text []byte
}

const consoleEnd = 16 << 10

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, b...)
	if len(c.text) > 2*consoleEnd {
		c.text = append([]byte(nil), c.text[len(c.text)-consoleEnd:]...)
	}
	return len(b), nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ToValidUTF8(string(c.text[max(0, len(c.text)-consoleEnd):]), "?")
}
