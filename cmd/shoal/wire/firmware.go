package wire

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/rauc"
	"github.com/shoal-edge/shoal/firmware/self"
	"github.com/shoal-edge/shoal/firmware/systemdboot"
	"github.com/shoal-edge/shoal/firmware/tryboot"
	"github.com/shoal-edge/shoal/firmware/uboot"
)

// newFirmware makes the part that updates this device, or none if the configuration has none.
func newFirmware(o Options) (*firmware.Device, error) {
	settings := o.Config.Agent.Firmware
	f := o.Firmware
	if f == nil {
		if settings.Backend == "" {
			return nil, nil
		}
		backend, bootID, err := firmwareBackend(o)
		if err != nil {
			return nil, err
		}
		f = &Firmware{HardwareID: settings.HardwareID, Backend: backend, BootID: bootID}
	}
	var root []byte
	if settings.Root != "" {
		var err error
		if root, err = os.ReadFile(settings.Root); err != nil {
			return nil, fmt.Errorf("agent.firmware.root: %w", err)
		}
	}
	return firmware.New(firmware.Config{
		Root: root, Rate: int64(perSecond(settings.Rate)), Artifacts: firmware.Artifacts(settings.Artifacts),
		Backend: f.Backend, Dir: filepath.Join(o.Config.DataDir, "firmware"), HardwareID: f.HardwareID, BootID: f.BootID, PowerOn: tryboot.PoweredOn(),
		Tries: settings.Tries, Version: settings.Version, Logger: o.Logger,
	})
}

// firmwareBackend is what boots this device, and the name of the present boot.
func firmwareBackend(o Options) (firmware.Backend, string, error) {
	settings := o.Config.Agent.Firmware
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, "", fmt.Errorf("this boot's name: %w", err)
	}
	bootID := strings.TrimSpace(string(boot))
	var b firmware.Backend
	switch settings.Backend {
	case "self":
		bootID += "-" + rand.Text() // a start of the process is a boot
		b, err = self.New(self.Config{Dir: settings.Self.Dir, Booted: os.Getenv(self.SlotVariable), Restart: end})
	case "tryboot":
		t := settings.Tryboot
		b, err = tryboot.New(tryboot.Config{Autoboot: t.Autoboot, Slots: map[string]tryboot.Slot{"a": tryboot.Slot(t.SlotA), "b": tryboot.Slot(t.SlotB)}})
	case "rauc":
		b, err = rauc.New(rauc.Config{Dir: filepath.Join(o.Config.DataDir, "firmware", "rauc"), System: settings.RAUC.Config})
	case "systemd-boot":
		t := settings.SystemdBoot
		b, err = systemdboot.New(systemdboot.Config{
			Entries: t.Entries, Slots: map[string]systemdboot.Slot{"a": systemdboot.Slot(t.SlotA), "b": systemdboot.Slot(t.SlotB)},
		})
	default:
		b, err = ubootBackend(settings.UBoot)
	}
	return b, bootID, err
}

// end ends this process in order, as a service manager would, which then starts it again.
func end(context.Context) error { return syscall.Kill(os.Getpid(), syscall.SIGTERM) }

func ubootBackend(settings configs.UBoot) (*uboot.Backend, error) {
	config := uboot.Config{Slots: map[string]string{"a": settings.SlotA, "b": settings.SlotB}}
	for _, e := range settings.Environment {
		config.Environment = append(config.Environment, uboot.Place(e))
	}
	return uboot.New(config)
}
