// Package tryboot owns A and B on a Raspberry Pi: autoboot.txt says which partition the firmware of the board starts, and which one after a
// restart that asks for it once ("0 tryboot"). Source: https://www.raspberrypi.com/documentation/computers/config_txt.html#autoboot-txt.
//
// The firmware tries a partition once and falls back at any further start. So the device itself asks again for as long as there are tries,
// which are counted in comments of autoboot.txt. The file is one sector of 512 bytes, as large as the firmware reads, and is written in its
// place: after a power cut it is the old or the new one.
package tryboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/shoal-edge/shoal/firmware"
)

// size is all that the firmware reads of autoboot.txt.
const size = 512

// chosen is where the firmware tells what it has done.
const chosen = "/proc/device-tree/chosen/bootloader/"

// Slot is one of the two systems: the partition that the firmware starts, and what an image is written to.
type Slot struct {
	BootPartition int
	Path          string
}

// Config configures a Backend.
type Config struct {
	// Autoboot is the file autoboot.txt on the first partition. It must be there.
	Autoboot string
	// Slots are a and b.
	Slots map[string]Slot
	// Partition is the one that was started. Nil: the firmware says so in the device tree.
	Partition func() (int, error)
	// Restart restarts the device, asking for the partition of the trial if try is set. Nil: systemctl reboot.
	Restart func(ctx context.Context, try bool) error
}

// Backend is a firmware.Backend.
type Backend struct{ cfg Config }

// New returns a backend.
func New(cfg Config) (*Backend, error) {
	a, b := cfg.Slots["a"], cfg.Slots["b"]
	if len(cfg.Slots) != 2 || a.Path == "" || b.Path == "" || a.BootPartition < 1 || b.BootPartition < 1 || a.BootPartition == b.BootPartition {
		return nil, fmt.Errorf("tryboot: the slots are a and b, each with its path and boot partition: %w", firmware.ErrNoSlot)
	}
	if cfg.Partition == nil {
		cfg.Partition = func() (int, error) { return number(chosen + "partition") }
	}
	if cfg.Restart == nil {
		cfg.Restart = restart
	}
	return &Backend{cfg}, nil
}

// number reads a number of the device tree, which is big-endian.
func number(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("tryboot: the firmware does not say what it started: %w", err)
	}
	if len(data) != 4 {
		return 0, fmt.Errorf("tryboot: %s has %d bytes", path, len(data))
	}
	return int(binary.BigEndian.Uint32(data)), nil
}

// hadPowerOn is the bit of the power manager's reset status (PM_RSTS) that says that the board was switched on.
const hadPowerOn = 0x1000

// PoweredOn reports whether the board was switched on, as its firmware tells, and not restarted by a watchdog or a panic. False where it
// does not tell.
func PoweredOn() bool {
	status, err := number(chosen + "rsts")
	return err == nil && status&hadPowerOn != 0
}

func restart(ctx context.Context, try bool) error {
	if try {
		return firmware.Reboot(ctx, "--reboot-argument=0 tryboot")
	}
	return firmware.Reboot(ctx)
}

// Name implements firmware.Backend.
func (b *Backend) Name() string { return "tryboot" }

// record is what autoboot.txt says.
type record struct {
	fallback string // the slot that is started
	trying   string
	left     int
}

const note = "# shoal: trying="

func (b *Backend) read() (r record, err error) {
	data, err := os.ReadFile(b.cfg.Autoboot)
	if err != nil {
		return r, fmt.Errorf("tryboot: %w", err)
	}
	section := "[all]"
	for line := range strings.Lines(string(bytes.TrimRight(data, "\x00"))) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, note); ok {
			slot, left, _ := strings.Cut(rest, " left=")
			if r.left, err = strconv.Atoi(left); err == nil && b.cfg.Slots[slot].Path != "" {
				r.trying = slot
			}
		}
		if strings.HasPrefix(line, "[") {
			section = line
		}
		if text, ok := strings.CutPrefix(line, "boot_partition="); ok && section == "[all]" {
			r.fallback = b.slotOf(text)
		}
	}
	if r.fallback == "" {
		return r, fmt.Errorf("tryboot: %s names no partition of a slot under [all]", b.cfg.Autoboot)
	}
	return r, nil
}

func (b *Backend) slotOf(partition string) string {
	for name, slot := range b.cfg.Slots {
		if strconv.Itoa(slot.BootPartition) == partition {
			return name
		}
	}
	return ""
}

// write writes autoboot.txt where it is: one sector.
func (b *Backend) write(r record) error {
	var text strings.Builder
	_, _ = fmt.Fprintf(&text, "[all]\ntryboot_a_b=1\nboot_partition=%d\n[tryboot]\nboot_partition=%d\n",
		b.cfg.Slots[r.fallback].BootPartition, b.cfg.Slots[firmware.Other(r.fallback)].BootPartition)
	if r.trying != "" {
		_, _ = fmt.Fprintf(&text, "%s%s left=%d\n", note, r.trying, r.left)
	}
	data := append([]byte(text.String()), bytes.Repeat([]byte("\n"), size-text.Len())...)
	file, err := os.OpenFile(b.cfg.Autoboot, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("tryboot: %w", err)
	}
	_, err = file.WriteAt(data, 0)
	return errors.Join(err, file.Truncate(size), file.Sync(), file.Close())
}

// Boot implements firmware.Backend.
func (b *Backend) Boot(context.Context) (firmware.Boot, error) {
	r, err := b.read()
	if err != nil {
		return firmware.Boot{}, err
	}
	partition, err := b.cfg.Partition()
	if err != nil {
		return firmware.Boot{}, err
	}
	booted := b.slotOf(strconv.Itoa(partition))
	if booted == "" {
		return firmware.Boot{}, fmt.Errorf("tryboot: partition %d was started: %w", partition, firmware.ErrNoSlot)
	}
	return firmware.Boot{Booted: booted, Default: r.fallback, Trying: r.trying, Spent: r.trying != "" && r.left == 0 && booted != r.trying}, nil
}

// Open implements firmware.Backend.
func (b *Backend) Open(ctx context.Context, slot string) (firmware.Slot, error) {
	boot, err := b.Boot(ctx)
	switch {
	case err != nil:
		return nil, err
	case b.cfg.Slots[slot].Path == "":
		return nil, fmt.Errorf("tryboot: %q: %w", slot, firmware.ErrNoSlot)
	case boot.Uses(slot):
		return nil, fmt.Errorf("tryboot: %q: %w", slot, firmware.ErrRunning)
	}
	return firmware.OpenSlot(b.cfg.Slots[slot].Path)
}

// Read implements firmware.Backend.
func (b *Backend) Read(_ context.Context, slot string) (firmware.Source, error) {
	path := b.cfg.Slots[slot].Path
	if path == "" {
		return nil, fmt.Errorf("tryboot: %q: %w", slot, firmware.ErrNoSlot)
	}
	return os.Open(path)
}

// Arm implements firmware.Backend. Only the slot that is not the default one can be tried: the firmware has one other.
func (b *Backend) Arm(_ context.Context, slot string, tries int) error {
	r, err := b.read()
	if err != nil {
		return err
	}
	if slot != firmware.Other(r.fallback) || b.cfg.Slots[slot].Path == "" {
		return fmt.Errorf("tryboot: %q: %w", slot, firmware.ErrNoSlot)
	}
	r.trying, r.left = slot, tries
	return b.write(r)
}

// Refill implements firmware.Backend.
func (b *Backend) Refill(_ context.Context, tries int) error {
	r, err := b.read()
	if err != nil {
		return err
	}
	if r.trying == "" {
		return fmt.Errorf("tryboot: %w", firmware.ErrNoTrial)
	}
	r.left = tries
	return b.write(r)
}

// Commit implements firmware.Backend.
func (b *Backend) Commit(ctx context.Context) error {
	boot, err := b.Boot(ctx)
	if err != nil {
		return err
	}
	if boot.Trying == "" || boot.Trying != boot.Booted {
		return fmt.Errorf("tryboot: %w", firmware.ErrNoTrial)
	}
	return b.write(record{fallback: boot.Trying})
}

// Revert implements firmware.Backend.
func (b *Backend) Revert(context.Context) error {
	r, err := b.read()
	if err != nil {
		return err
	}
	return b.write(record{fallback: r.fallback})
}

// Restart implements firmware.Backend. A try is spent before it.
func (b *Backend) Restart(ctx context.Context) error {
	r, err := b.read()
	if err != nil {
		return err
	}
	try := r.trying != "" && r.left > 0
	if try {
		r.left--
		if err := b.write(r); err != nil {
			return err
		}
	}
	return b.cfg.Restart(ctx, try)
}
