package uboot

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/shoal-edge/shoal/firmware"
)

// The variables. bootcount, bootlimit and upgrade_available are U-Boot's own: it counts boots while upgrade_available is 1, and runs
// altbootcmd instead of bootcmd once there were more than bootlimit. The device's bootcmd boots shoal_try while upgrade_available is 1
// and shoal_slot otherwise, its altbootcmd shoal_slot; docs/firmware.md has both.
const (
	varSlot      = "shoal_slot"
	varTry       = "shoal_try"
	varAvailable = "upgrade_available"
	varCount     = "bootcount"
	varLimit     = "bootlimit"
)

// Config configures a Backend.
type Config struct {
	// Environment is where the copies of U-Boot's environment are, one or two, as in /etc/fw_env.config. Power cuts are only harmless with two.
	Environment []Place
	// Slots are the partitions a and b.
	Slots map[string]string
	// Booted returns the slot that runs. Nil: shoal.slot= of the kernel's command line says.
	Booted func() (string, error)
	// Restart restarts the device. Nil: `systemctl reboot`.
	Restart func(ctx context.Context) error
}

// Backend is a firmware.Backend.
type Backend struct {
	cfg Config
	env environment
}

// New returns a backend.
func New(cfg Config) (*Backend, error) {
	if n := len(cfg.Environment); n != 1 && n != 2 {
		return nil, fmt.Errorf("uboot: an environment has one or two copies, not %d", n)
	}
	for _, p := range cfg.Environment {
		if p.Size < minSize || p.Size > maxSize || p.Size != cfg.Environment[0].Size {
			return nil, fmt.Errorf("uboot: an environment of %d bytes", p.Size)
		}
	}
	if cfg.Slots["a"] == "" || cfg.Slots["b"] == "" || len(cfg.Slots) != 2 {
		return nil, fmt.Errorf("uboot: the slots are a and b: %w", firmware.ErrNoSlot)
	}
	if cfg.Booted == nil {
		cfg.Booted = firmware.BootedSlot
	}
	if cfg.Restart == nil {
		cfg.Restart = func(ctx context.Context) error { return firmware.Reboot(ctx) }
	}
	return &Backend{cfg: cfg, env: environment{places: cfg.Environment}}, nil
}

// Name implements firmware.Backend.
func (b *Backend) Name() string { return "uboot" }

// Boot implements firmware.Backend.
func (b *Backend) Boot(context.Context) (firmware.Boot, error) {
	vars, _, _, err := b.env.read()
	if err != nil {
		return firmware.Boot{}, err
	}
	booted, err := b.cfg.Booted()
	if err != nil {
		return firmware.Boot{}, err
	}
	boot := firmware.Boot{Booted: booted, Default: vars[varSlot]}
	if vars[varAvailable] == "1" {
		boot.Trying = vars[varTry]
		boot.Spent = number(vars[varCount]) > number(vars[varLimit])
	}
	return boot, nil
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// Open implements firmware.Backend.
func (b *Backend) Open(ctx context.Context, slot string) (firmware.Slot, error) {
	boot, err := b.Boot(ctx)
	switch {
	case err != nil:
		return nil, err
	case b.cfg.Slots[slot] == "":
		return nil, fmt.Errorf("uboot: %q: %w", slot, firmware.ErrNoSlot)
	case boot.Uses(slot):
		return nil, fmt.Errorf("uboot: %q: %w", slot, firmware.ErrRunning)
	}
	return firmware.OpenSlot(b.cfg.Slots[slot])
}

// Read implements firmware.Backend.
func (b *Backend) Read(_ context.Context, slot string) (firmware.Source, error) {
	path := b.cfg.Slots[slot]
	if path == "" {
		return nil, fmt.Errorf("uboot: %q: %w", slot, firmware.ErrNoSlot)
	}
	return os.Open(path)
}

// Arm implements firmware.Backend.
func (b *Backend) Arm(_ context.Context, slot string, tries int) error {
	if b.cfg.Slots[slot] == "" {
		return fmt.Errorf("uboot: %q: %w", slot, firmware.ErrNoSlot)
	}
	return b.env.write(map[string]string{varTry: slot, varAvailable: "1", varCount: "0", varLimit: strconv.Itoa(tries)})
}

// Refill implements firmware.Backend.
func (b *Backend) Refill(ctx context.Context, tries int) error {
	if boot, err := b.Boot(ctx); err != nil || boot.Trying == "" {
		return orNoTrial(err)
	}
	return b.env.write(map[string]string{varCount: "0", varLimit: strconv.Itoa(tries)})
}

// Commit implements firmware.Backend.
func (b *Backend) Commit(ctx context.Context) error {
	boot, err := b.Boot(ctx)
	if err != nil || boot.Trying == "" || boot.Trying != boot.Booted {
		return orNoTrial(err)
	}
	return b.env.write(map[string]string{varSlot: boot.Trying, varTry: "", varAvailable: "0", varCount: "0"})
}

func orNoTrial(err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("uboot: %w", firmware.ErrNoTrial)
}

// Revert implements firmware.Backend.
func (b *Backend) Revert(context.Context) error {
	return b.env.write(map[string]string{varTry: "", varAvailable: "0", varCount: "0"})
}

// Restart implements firmware.Backend.
func (b *Backend) Restart(ctx context.Context) error { return b.cfg.Restart(ctx) }
