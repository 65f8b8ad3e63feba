package hardware_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/test/need"
)

func message(parts ...string) []byte { return []byte(strings.Join(parts, "\x00") + "\x00") }

func TestConcerns(t *testing.T) {
	const path = "/devices/platform/scb/fd500000.pcie/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0"
	for _, test := range []struct {
		message []byte
		want    bool
	}{
		{message("add@"+path, "ACTION=add", "DEVPATH="+path, "SUBSYSTEM=tty", "MAJOR=188", "MINOR=0", "DEVNAME=ttyUSB0", "SEQNUM=4711"), true},
		{message("remove@"+path, "ACTION=remove", "DEVPATH="+path, "SUBSYSTEM=tty"), true},
		{message("change@"+path, "ACTION=change", "DEVPATH="+path, "SUBSYSTEM=tty"), false},
		{message("change@/devices/x/block/sda", "ACTION=change", "DEVPATH=/devices/x/block/sda", "SUBSYSTEM=block"), true},
		{message("add@/devices/virtual/net/veth0", "ACTION=add", "DEVPATH=/devices/virtual/net/veth0", "SUBSYSTEM=net"), false},
		{message("add@/devices/virtual/block/loop0", "ACTION=add", "DEVPATH=/devices/virtual/block/loop0", "SUBSYSTEM=block"), false},
		{message("libudev", "ACTION=add", "DEVPATH="+path, "SUBSYSTEM=tty"), false},
		{nil, false},
	} {
		if got := hardware.Concerns(test.message); got != test.want {
			t.Errorf("%q: %t", test.message, got)
		}
	}
}

func FuzzConcerns(f *testing.F) {
	f.Add(message("add@/devices/x", "ACTION=add", "DEVPATH=/devices/x", "SUBSYSTEM=tty"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if hardware.Concerns(data) && !strings.Contains(string(data), "SUBSYSTEM=") {
			t.Error("nobody's message concerns us")
		}
	})
}

// The kernel itself tells of a device: writing to a device's uevent file has it send one.
func TestWatchTheKernel(t *testing.T) {
	need.Root(t)
	ports, err := filepath.Glob("/sys/class/tty/*/device") // those that have hardware
	if err != nil || len(ports) == 0 {
		need.Missing(t, "needs a tty with hardware: %v", err)
	}
	file := filepath.Join(filepath.Dir(ports[0]), "uevent")
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- hardware.Watch(ctx, func() {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
	}()
	for told := false; !told; {
		if err := os.WriteFile(file, []byte("add"), 0o600); err != nil {
			need.Missing(t, "%v: sysfs is read-only in a container", err)
		}
		select {
		case <-heard:
			told = true
		case err := <-done:
			t.Fatal(err)
		case <-time.After(100 * time.Millisecond): // the socket may not have been there yet
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
