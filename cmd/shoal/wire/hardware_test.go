package wire

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/api/devices"
	"github.com/shoal-edge/shoal/configs"
)

func TestHardware(t *testing.T) {
	got := Hardware(configs.Agent{
		Discover: configs.Discover{Classes: []string{"serial"}, Exclude: []map[string]string{{"usb-vendor": "1a86"}}},
		Devices: []configs.Device{
			{Resource: "shoal.dev/press", Match: map[string]string{"usb-serial": "A5"}, Machine: "press-3"},
			{Resource: "shoal.dev/x", Path: "/dev/x", ContainerPath: "/dev/y"},
		},
	})
	want := hardware.Config{
		Classes: []string{"serial"}, Exclude: []devices.Match{{"usb-vendor": "1a86"}},
		Declared: []hardware.Declared{
			{Resource: "shoal.dev/press", Match: devices.Match{"usb-serial": "A5"}, Machine: "press-3"},
			{Resource: "shoal.dev/x", Path: "/dev/x", ContainerPath: "/dev/y"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRescanOnHangup(t *testing.T) {
	own := make(chan os.Signal, 1)
	signal.Notify(own, syscall.SIGHUP) // one that comes before rescan listens must not end the test
	defer signal.Stop(own)
	ctx, cancel := context.WithCancel(t.Context())
	looked := make(chan struct{}, 16)
	done := make(chan error, 1)
	go func() { done <- rescan(ctx, func() { looked <- struct{}{} }) }()
	for told := false; !told; {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case <-looked:
			told = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
