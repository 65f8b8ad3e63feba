package fleet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/firmware/uboot"
)

// FirmwareConfig gives members a bootloader: U-Boot's environment and two slots, in files.
type FirmwareConfig struct {
	HardwareID string
	// SlotSize is the size of a slot in bytes.
	SlotSize int64
}

// DoesNotStart begins an image whose kernel panics: the board starts anew by its watchdog, and counts that.
const DoesNotStart = "does not start"

// board is what of a device outlives its power: the bootloader's record and the slots.
type board struct {
	cfg    *FirmwareConfig
	dir    string
	places []uboot.Place
	booted string
	boots  int
}

func newBoard(cfg *FirmwareConfig, dir string) *board {
	disk := filepath.Join(dir, "environment")
	return &board{cfg: cfg, dir: dir, places: []uboot.Place{{Path: disk, Size: 4096}, {Path: disk, Offset: 4096, Size: 4096}}}
}

func (b *board) slot(name string) string { return filepath.Join(b.dir, "slot-"+name) }

// boot switches the board on, and has it restart by restart.
func (b *board) boot(restart func()) (*wire.Firmware, error) {
	if err := b.provision(); err != nil {
		return nil, err
	}
	for {
		slot, err := uboot.PlayBoot(b.places)
		if err != nil {
			return nil, err
		}
		image, err := os.ReadFile(b.slot(slot))
		if err != nil {
			return nil, err
		}
		b.boots++
		if !bytes.HasPrefix(image, []byte(DoesNotStart)) {
			b.booted = slot
			break
		}
	}
	backend, err := uboot.New(uboot.Config{
		Environment: b.places, Slots: map[string]string{"a": b.slot("a"), "b": b.slot("b")},
		Booted:  func() (string, error) { return b.booted, nil },
		Restart: func(context.Context) error { restart(); return nil },
	})
	if err != nil {
		return nil, err
	}
	return &wire.Firmware{HardwareID: b.cfg.HardwareID, Backend: backend, BootID: fmt.Sprintf("boot-%d", b.boots)}, nil
}

// provision makes the board, the first time.
func (b *board) provision() error {
	if b.boots > 0 {
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	for path, size := range map[string]int64{b.places[0].Path: 8192, b.slot("a"): b.cfg.SlotSize, b.slot("b"): b.cfg.SlotSize} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			return err
		}
	}
	return uboot.Provision(b.places, "a", nil)
}

// restart stops and starts a member whose device asked for it, as a reboot does.
func (f *Fleet) restart(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.restarts.Go(func() {
		if err := f.StopMember(name); err != nil {
			f.cfg.Logger.Error("a restart: stop", "member", name, "error", err)
		}
		f.mu.Lock()
		closed := f.closed
		f.mu.Unlock()
		if closed {
			return
		}
		if err := f.StartMember(context.Background(), name); err != nil {
			f.cfg.Logger.Error("a restart: start", "member", name, "error", err)
		}
	})
}

// Running returns the image that a member runs.
func (f *Fleet) Running(name string) ([]byte, error) {
	m := f.Member(name)
	m.life.Lock()
	defer m.life.Unlock()
	return os.ReadFile(m.board.slot(m.board.booted))
}

// Boots is how often a member's board was started, panics included.
func (f *Fleet) Boots(name string) int {
	m := f.Member(name)
	m.life.Lock()
	defer m.life.Unlock()
	return m.board.boots
}
