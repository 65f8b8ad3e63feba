// Package rauc owns the update of a device by RAUC (https://rauc.io): what is downloaded is a bundle, which RAUC checks by its own
// signature and writes into the slots that do not run, and RAUC speaks to the bootloader. It is reached by its command, which asks its service
// over D-Bus.
//
// RAUC knows which slot is started next, and not whether that is on trial; so this backend keeps a record of that beside the bundles. The
// bootloader's own record, which RAUC writes, is what counts: a record of a trial whose slot neither runs nor is started next means nothing.
package rauc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-edge/shoal/durable"
	"github.com/shoal-edge/shoal/firmware"
)

// patience bounds a question to RAUC; an installation takes as long as it takes.
const patience = time.Minute

// DefaultConfig is where RAUC's configuration is.
const DefaultConfig = "/etc/rauc/system.conf"

// Config configures a Backend. Dir is required.
type Config struct {
	// Dir is for bundles, and the record. It must be on a disk with room for a bundle, which no update touches.
	Dir string
	// System is RAUC's configuration. Default: DefaultConfig.
	System string
	// Run runs RAUC's command and returns what it has printed. Nil: rauc on the PATH.
	Run func(ctx context.Context, args ...string) ([]byte, error)
	// Restart restarts the device. Nil: `systemctl reboot`.
	Restart func(ctx context.Context) error
}

// Backend is a firmware.Backend and a firmware.Installer.
type Backend struct {
	cfg  Config
	kept bool // the slot that runs was said to be good since this start
}

// record is what RAUC does not know: which slot is on trial, and which one is gone back to.
type record struct {
	Trying  string `json:"trying,omitempty"`
	Default string `json:"default,omitempty"`
}

// New returns a backend, if RAUC is set up for one.
func New(cfg Config) (*Backend, error) {
	if cfg.System == "" {
		cfg.System = DefaultConfig
	}
	if cfg.Run == nil {
		cfg.Run = run
	}
	if cfg.Restart == nil {
		cfg.Restart = func(ctx context.Context) error { return firmware.Reboot(ctx) }
	}
	data, err := os.ReadFile(cfg.System)
	if err != nil {
		return nil, fmt.Errorf("rauc: %w", err)
	}
	if setting(data, "system", "activate-installed") != "false" {
		return nil, fmt.Errorf("rauc: %s must have activate-installed=false in [system]: a bundle is started when the rollout says so, "+
			"not when it is installed", cfg.System)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("rauc: %w", err)
	}
	return &Backend{cfg: cfg}, nil
}

// setting reads one value of a key file as GLib has them.
func setting(data []byte, section, key string) string {
	in := ""
	for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
		line := strings.TrimSpace(scan.Text())
		if strings.HasPrefix(line, "[") {
			in = strings.Trim(line, "[]")
		}
		if name, value, ok := strings.Cut(line, "="); ok && in == section && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "rauc", args...)
	cmd.WaitDelay = 10 * time.Second
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rauc %s: %w: %s", args[0], err, why(out, failure.Bytes()))
	}
	return out, nil
}

// why finds in what RAUC's command has printed why it failed.
func why(out, failure []byte) string {
	const last = "LastError: "
	if _, why, ok := strings.Cut(string(out), last); ok {
		failure = []byte(why)
	}
	text := strings.TrimSpace(string(failure))
	return text[max(0, len(text)-500):]
}

// Name implements firmware.Backend.
func (b *Backend) Name() string { return "rauc" }

// status is what `rauc status --output-format=json` says (RAUC 1.8 and later).
type status struct {
	Booted  string                       `json:"booted"`       // the bootname of the slot that runs
	Primary string                       `json:"boot_primary"` // the name of the slot that is started next
	Slots   []map[string]json.RawMessage `json:"slots"`
}

// system is what there is: RAUC's names of the two bootable slots, by ours, and which of ours runs and is started next.
type system struct {
	names           map[string]string
	booted, primary string
}

func (b *Backend) ask(ctx context.Context) (s system, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := b.cfg.Run(ctx, "status", "--output-format=json")
	if err != nil {
		return s, err
	}
	var st status
	if err := json.Unmarshal(out, &st); err != nil {
		return s, fmt.Errorf("rauc status: %w", err)
	}
	bootnames := map[string]string{} // by RAUC's name
	for _, one := range st.Slots {
		for name, data := range one {
			var slot struct {
				Bootname string `json:"bootname"`
			}
			if err := json.Unmarshal(data, &slot); err != nil {
				return s, fmt.Errorf("rauc status: slot %s: %w", name, err)
			}
			if slot.Bootname != "" {
				bootnames[name] = slot.Bootname
			}
		}
	}
	if len(bootnames) != 2 {
		return s, fmt.Errorf("rauc: %d slots have a bootname, and two are wanted: %w", len(bootnames), firmware.ErrNoSlot)
	}
	s.names = map[string]string{}
	for i, name := range slices.Sorted(maps.Keys(bootnames)) {
		ours := []string{"a", "b"}[i]
		s.names[ours] = name
		if bootnames[name] == st.Booted {
			s.booted = ours
		}
		if name == st.Primary {
			s.primary = ours
		}
	}
	if s.booted == "" || s.primary == "" {
		return s, fmt.Errorf("rauc: runs %q and starts %q next, and one of them is no slot: %w", st.Booted, st.Primary, firmware.ErrNoSlot)
	}
	return s, nil
}

func (b *Backend) recordFile() string { return filepath.Join(b.cfg.Dir, "rauc.json") }

// read reads the record. One that is not there, or cannot be read, says that nothing is on trial.
func (b *Backend) read() (r record) {
	data, err := os.ReadFile(b.recordFile())
	if err != nil || json.Unmarshal(data, &r) != nil || r.Trying != "" && firmware.Other(r.Trying) != r.Default {
		return record{}
	}
	return r
}

func (b *Backend) write(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.Write(b.recordFile(), append(data, '\n'), 0o600)
}

// Boot implements firmware.Backend. A slot that is not on trial is said to be good once in each start: some bootloaders count all boots.
func (b *Backend) Boot(ctx context.Context) (firmware.Boot, error) {
	s, err := b.ask(ctx)
	if err != nil {
		return firmware.Boot{}, err
	}
	boot := firmware.Boot{Booted: s.booted, Default: s.primary}
	switch r := b.read(); r.Trying {
	case "":
	case s.booted, s.primary: // in its last try a slot runs, and is not the one that is started next
		boot.Default, boot.Trying = r.Default, r.Trying
	default: // the bootloader has gone back, or has never heard of it
		if err := b.write(record{}); err != nil {
			return firmware.Boot{}, err
		}
	}
	if boot.Booted != boot.Trying && !b.kept {
		if err := b.mark(ctx, "mark-good", "booted"); err != nil {
			return firmware.Boot{}, err
		}
		b.kept = true
	}
	return boot, nil
}

func (b *Backend) mark(ctx context.Context, what, slot string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := b.cfg.Run(ctx, "status", what, slot)
	return err
}

func (b *Backend) bundle(slot string) string { return filepath.Join(b.cfg.Dir, slot+".raucb") }

// Open implements firmware.Backend: the slot is the file of a bundle.
func (b *Backend) Open(ctx context.Context, slot string) (firmware.Slot, error) {
	boot, err := b.Boot(ctx)
	switch {
	case err != nil:
		return nil, err
	case slot != "a" && slot != "b":
		return nil, fmt.Errorf("rauc: %q: %w", slot, firmware.ErrNoSlot)
	case boot.Uses(slot):
		return nil, fmt.Errorf("rauc: %q: %w", slot, firmware.ErrRunning)
	}
	file, err := os.OpenFile(b.bundle(slot), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	return firmware.OpenSlot(b.bundle(slot))
}

// Read implements firmware.Backend. A slot that was not filled by a bundle from here reads as empty.
func (b *Backend) Read(_ context.Context, slot string) (firmware.Source, error) {
	if slot != "a" && slot != "b" {
		return nil, fmt.Errorf("rauc: %q: %w", slot, firmware.ErrNoSlot)
	}
	file, err := os.Open(b.bundle(slot))
	if errors.Is(err, os.ErrNotExist) {
		return os.Open(os.DevNull)
	}
	return file, err
}

// Install implements firmware.Installer. RAUC marks the slot as bad before it writes to it.
func (b *Backend) Install(ctx context.Context, slot string, size int64) error {
	if err := os.Truncate(b.bundle(slot), size); err != nil { // an older one may have been longer
		return err
	}
	_, err := b.cfg.Run(ctx, "install", b.bundle(slot))
	return err
}

// Arm implements firmware.Backend. How many tries a slot has is up to RAUC's bootloader, such as boot-attempts-primary for U-Boot.
func (b *Backend) Arm(ctx context.Context, slot string, _ int) error {
	s, err := b.ask(ctx)
	if err != nil {
		return err
	}
	if s.names[slot] == "" {
		return fmt.Errorf("rauc: %q: %w", slot, firmware.ErrNoSlot)
	}
	if err := b.write(record{Trying: slot, Default: firmware.Other(slot)}); err != nil {
		return err
	}
	return b.mark(ctx, "mark-active", s.names[slot]) // the one write that counts
}

// Refill implements firmware.Backend.
func (b *Backend) Refill(ctx context.Context, _ int) error {
	s, err := b.ask(ctx)
	if err != nil {
		return err
	}
	r := b.read()
	if r.Trying == "" || r.Trying != s.primary && r.Trying != s.booted {
		return fmt.Errorf("rauc: %w", firmware.ErrNoTrial)
	}
	return b.mark(ctx, "mark-active", s.names[r.Trying])
}

// Commit implements firmware.Backend. Until the record is gone, the trial goes on, with all of its tries.
func (b *Backend) Commit(ctx context.Context) error {
	s, err := b.ask(ctx)
	if err != nil {
		return err
	}
	if r := b.read(); r.Trying == "" || r.Trying != s.booted {
		return fmt.Errorf("rauc: %w", firmware.ErrNoTrial)
	}
	if err := b.mark(ctx, "mark-good", "booted"); err != nil {
		return err
	}
	b.kept = true
	return b.write(record{})
}

// Revert implements firmware.Backend.
func (b *Backend) Revert(ctx context.Context) error {
	r := b.read()
	if r.Trying == "" {
		return nil
	}
	s, err := b.ask(ctx)
	if err != nil {
		return err
	}
	if err := b.mark(ctx, "mark-active", s.names[r.Default]); err != nil {
		return err
	}
	return b.write(record{})
}

// Restart implements firmware.Backend.
func (b *Backend) Restart(ctx context.Context) error { return b.cfg.Restart(ctx) }
