// Package systemdboot owns A and B on devices that systemd-boot starts: each slot has an entry in the boot loader's folder, and the name of the
// one that is tried says how many tries it has, which systemd-boot counts itself. Sources:
// https://uapi-group.org/specifications/specs/boot_loader_specification, https://systemd.io/AUTOMATIC_BOOT_ASSESSMENT.
//
// The entry of what is being tried has a higher version than the other one's, so it is booted first, and last when its tries are spent. To
// keep it is to take the count off its name. systemd-bless-boot.service does that too, on its own judgement: it has to be off.
package systemdboot

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/shoal-edge/shoal/firmware"
)

// Slot is one of the two systems.
type Slot struct {
	// Path is what an image is written to: a partition, or a file such as a unified kernel image on the boot partition.
	Path string
	// Entry is the boot loader's entry for it, without version and sort-key. Its options say shoal.slot=a, or b.
	Entry string
}

// Config configures a Backend.
type Config struct {
	// Entries is the folder of the boot loader's entries, such as /boot/loader/entries.
	Entries string
	// Slots are a and b.
	Slots map[string]Slot
	// Booted returns the slot that runs. Nil: shoal.slot= of the kernel's command line says.
	Booted func() (string, error)
	// Restart restarts the device. Nil: systemctl reboot.
	Restart func(ctx context.Context) error
}

// Backend is a firmware.Backend.
type Backend struct{ cfg Config }

// New returns a backend.
func New(cfg Config) (*Backend, error) {
	for _, name := range []string{"a", "b"} {
		if s := cfg.Slots[name]; s.Path == "" || s.Entry == "" {
			return nil, fmt.Errorf("systemd-boot: slot %s needs a path and an entry: %w", name, firmware.ErrNoSlot)
		}
	}
	if cfg.Booted == nil {
		cfg.Booted = firmware.BootedSlot
	}
	if cfg.Restart == nil {
		cfg.Restart = func(ctx context.Context) error { return firmware.Reboot(ctx) }
	}
	return &Backend{cfg}, nil
}

// Name implements firmware.Backend.
func (b *Backend) Name() string { return "systemd-boot" }

// Boot implements firmware.Backend.
func (b *Backend) Boot(context.Context) (firmware.Boot, error) {
	fallback, trying, err := b.standing()
	if err != nil {
		return firmware.Boot{}, err
	}
	booted, err := b.cfg.Booted()
	if err != nil {
		return firmware.Boot{}, err
	}
	boot := firmware.Boot{Booted: booted, Default: fallback.slot}
	if trying != nil {
		boot.Trying, boot.Spent = trying.slot, trying.left == 0 && booted != trying.slot
	}
	return boot, nil
}

// Open implements firmware.Backend. The slot's entry goes first: nothing boots what is half written.
func (b *Backend) Open(ctx context.Context, slot string) (firmware.Slot, error) {
	boot, err := b.Boot(ctx)
	switch {
	case err != nil:
		return nil, err
	case b.cfg.Slots[slot].Path == "":
		return nil, fmt.Errorf("systemd-boot: %q: %w", slot, firmware.ErrNoSlot)
	case boot.Uses(slot):
		return nil, fmt.Errorf("systemd-boot: %q: %w", slot, firmware.ErrRunning)
	}
	if err := b.remove(func(e *entry) bool { return e.slot == slot }); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(b.cfg.Slots[slot].Path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	return firmware.OpenSlot(b.cfg.Slots[slot].Path)
}

// Read implements firmware.Backend.
func (b *Backend) Read(_ context.Context, slot string) (firmware.Source, error) {
	path := b.cfg.Slots[slot].Path
	if path == "" {
		return nil, fmt.Errorf("systemd-boot: %q: %w", slot, firmware.ErrNoSlot)
	}
	return os.Open(path)
}

// Arm implements firmware.Backend. Only the slot that is not the default one can be tried.
func (b *Backend) Arm(_ context.Context, slot string, tries int) error {
	fallback, _, err := b.standing()
	if err != nil {
		return err
	}
	if b.cfg.Slots[slot].Path == "" || slot == fallback.slot {
		return fmt.Errorf("systemd-boot: %q: %w", slot, firmware.ErrNoSlot)
	}
	if err := b.remove(func(e *entry) bool { return e.slot == slot }); err != nil {
		return err
	}
	return b.write(slot, fmt.Sprintf("+%d", tries), fallback.version+1)
}

// Refill implements firmware.Backend.
func (b *Backend) Refill(_ context.Context, tries int) error {
	_, trying, err := b.standing()
	if err != nil {
		return err
	}
	if trying == nil {
		return fmt.Errorf("systemd-boot: %w", firmware.ErrNoTrial)
	}
	return b.rename(trying, fmt.Sprintf("+%d", tries))
}

// Commit implements firmware.Backend.
func (b *Backend) Commit(ctx context.Context) error {
	boot, err := b.Boot(ctx)
	if err != nil {
		return err
	}
	_, trying, err := b.standing()
	if err != nil {
		return err
	}
	if trying == nil || trying.slot != boot.Booted {
		return fmt.Errorf("systemd-boot: %w", firmware.ErrNoTrial)
	}
	if err := b.rename(trying, ""); err != nil {
		return err
	}
	return b.remove(func(e *entry) bool { return e.counted })
}

// Revert implements firmware.Backend.
func (b *Backend) Revert(context.Context) error {
	if _, _, err := b.standing(); err != nil {
		return err
	}
	return b.remove(func(e *entry) bool { return e.counted })
}

// Restart implements firmware.Backend.
func (b *Backend) Restart(ctx context.Context) error {
	return errors.Join(b.sync(), b.cfg.Restart(ctx))
}
