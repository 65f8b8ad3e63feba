package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoal-edge/shoal/firmware"
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
		backend, err := ubootBackend(o)
		if err != nil {
			return nil, err
		}
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("this boot's name: %w", err)
		}
		f = &Firmware{HardwareID: settings.HardwareID, Backend: backend, BootID: strings.TrimSpace(string(boot))}
	}
	var root []byte
	if settings.Root != "" {
		var err error
		if root, err = os.ReadFile(settings.Root); err != nil {
			return nil, fmt.Errorf("agent.firmware.root: %w", err)
		}
	}
	return firmware.New(firmware.Config{
		Root:    root,
		Backend: f.Backend, Dir: filepath.Join(o.Config.DataDir, "firmware"), HardwareID: f.HardwareID, BootID: f.BootID,
		Tries: settings.Tries, Version: settings.Version, Logger: o.Logger,
	})
}

func ubootBackend(o Options) (*uboot.Backend, error) {
	settings := o.Config.Agent.Firmware.UBoot
	config := uboot.Config{Slots: map[string]string{"a": settings.SlotA, "b": settings.SlotB}}
	for _, e := range settings.Environment {
		config.Environment = append(config.Environment, uboot.Place(e))
	}
	return uboot.New(config)
}
