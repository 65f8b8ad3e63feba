// Package self owns the update of shoal itself: two copies of the binary in a folder, a record of which one is started, and the launcher
// that starts it. A start of the process is what a boot is for other backends: service managers start it again when it ends, so a new
// binary that does not come up spends its tries, and the old one is started.
package self

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-edge/shoal/durable"
	"github.com/shoal-edge/shoal/firmware"
)

// SlotVariable is the variable of the environment in which the launcher says which copy it has started.
const SlotVariable = "SHOAL_SLOT"

const recordFile = "record.json"

// record is what the launcher goes by. A record that is not there, or cannot be read, says that a is the default and nothing is tried.
type record struct {
	Default string `json:"default"`
	Trying  string `json:"trying,omitempty"`
	Left    int    `json:"left,omitempty"`
}

func readRecord(dir string) record {
	var r record
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil || json.Unmarshal(data, &r) != nil || !isSlot(r.Default) || r.Trying != "" && !isSlot(r.Trying) {
		return record{Default: "a"}
	}
	return r
}

func (r record) save(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.Write(filepath.Join(dir, recordFile), append(data, '\n'), 0o600)
}

func isSlot(name string) bool { return name == "a" || name == "b" }

// binary is where a slot's copy is.
func binary(dir, slot string) string { return filepath.Join(dir, "shoal-"+slot) }

// Config configures a Backend.
type Config struct {
	// Dir has the copies and the record. It must be on a disk where programs can be started.
	Dir string
	// Booted is the copy that runs: what the launcher put into SlotVariable.
	Booted string
	// Restart ends this process in order; the service manager starts the launcher again.
	Restart func(ctx context.Context) error
}

// Backend is a firmware.Backend.
type Backend struct{ cfg Config }

// New returns a backend.
func New(cfg Config) (*Backend, error) {
	if !isSlot(cfg.Booted) {
		return nil, errors.New("self: this process was not started by 'shoal launch', which is what falls back: see docs/firmware.md")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("self: %w", err)
	}
	return &Backend{cfg}, nil
}

// Name implements firmware.Backend.
func (b *Backend) Name() string { return "self" }

// Boot implements firmware.Backend.
func (b *Backend) Boot(context.Context) (firmware.Boot, error) { return b.boot(), nil }

func (b *Backend) boot() firmware.Boot {
	r := readRecord(b.cfg.Dir)
	return firmware.Boot{
		Booted: b.cfg.Booted, Default: r.Default, Trying: r.Trying, Spent: r.Trying != "" && r.Left == 0 && b.cfg.Booted != r.Trying,
	}
}

// Open implements firmware.Backend.
func (b *Backend) Open(_ context.Context, slot string) (firmware.Slot, error) {
	boot := b.boot()
	switch {
	case !isSlot(slot):
		return nil, fmt.Errorf("self: %q: %w", slot, firmware.ErrNoSlot)
	case boot.Uses(slot):
		return nil, fmt.Errorf("self: %q: %w", slot, firmware.ErrRunning)
	}
	path := binary(b.cfg.Dir, slot)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o755)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return nil, err
	}
	return firmware.OpenSlot(path)
}

// Read implements firmware.Backend. The slot that runs may be the binary that the device was made with, which is no copy.
func (b *Backend) Read(_ context.Context, slot string) (firmware.Source, error) {
	if !isSlot(slot) {
		return nil, fmt.Errorf("self: %q: %w", slot, firmware.ErrNoSlot)
	}
	file, err := os.Open(binary(b.cfg.Dir, slot))
	if errors.Is(err, os.ErrNotExist) && slot == b.cfg.Booted {
		return os.Open("/proc/self/exe")
	}
	return file, err
}

// Arm implements firmware.Backend.
func (b *Backend) Arm(_ context.Context, slot string, tries int) error {
	if !isSlot(slot) {
		return fmt.Errorf("self: %q: %w", slot, firmware.ErrNoSlot)
	}
	r := readRecord(b.cfg.Dir)
	r.Trying, r.Left = slot, tries
	return r.save(b.cfg.Dir)
}

// Refill implements firmware.Backend.
func (b *Backend) Refill(_ context.Context, tries int) error {
	r := readRecord(b.cfg.Dir)
	if r.Trying == "" {
		return fmt.Errorf("self: %w", firmware.ErrNoTrial)
	}
	r.Left = tries
	return r.save(b.cfg.Dir)
}

// Commit implements firmware.Backend.
func (b *Backend) Commit(context.Context) error {
	r := readRecord(b.cfg.Dir)
	if r.Trying == "" || r.Trying != b.cfg.Booted {
		return fmt.Errorf("self: %w", firmware.ErrNoTrial)
	}
	return record{Default: r.Trying}.save(b.cfg.Dir)
}

// Revert implements firmware.Backend.
func (b *Backend) Revert(context.Context) error {
	return record{Default: readRecord(b.cfg.Dir).Default}.save(b.cfg.Dir)
}

// Restart implements firmware.Backend.
func (b *Backend) Restart(ctx context.Context) error { return b.cfg.Restart(ctx) }
