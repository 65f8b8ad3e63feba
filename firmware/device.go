package firmware

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/api/tagged"
	"github.com/shoal-edge/shoal/firmware/trust"
)

// Defaults of Config.
const (
	DefaultTries = 3
	checkEvery   = 5 * time.Second
	retryFirst   = time.Second
	retryMost    = 5 * time.Minute
)

// Config configures a Device. Backend, Dir, HardwareID and BootID are required.
type Config struct {
	Backend Backend
	// Dir is where the journal is.
	Dir        string
	HardwareID string
	// BootID names this boot: Linux' boot_id. PowerOn: the device was switched on, as far as it can tell.
	BootID  string
	PowerOn bool
	// Tries is how many boots a release has to come up. Default: DefaultTries.
	Tries int
	// Version is the release that the device was made with, for as long as it has installed none.
	Version string
	// HTTP fetches artifacts. Nil: a client of its own.
	HTTP *http.Client
	// Rate bounds what is fetched from outside the network, in bytes a second. 0: no bound.
	Rate int64
	// Neighbours are the devices of the same network. May be nil.
	Neighbours Neighbours
	// Artifacts are those that were brought. Empty: none.
	Artifacts Artifacts
	// Check runs the health checks of an assignment once. Reached: the control plane is connected now. Both may be nil.
	Check   func(ctx context.Context, h *firmwarev1.Health) error
	Reached func() bool
	// Root is the TUF root that the device was made with: it then installs only what the release's makers have signed. Empty: it believes
	// the control plane.
	Root []byte
	// Report gets every new status. It must not block.
	Report func(firmwarev1.DeviceFirmwareStatus)
	Logger *slog.Logger
	Now    func() time.Time
}

// Device takes one device through its updates.
type Device struct {
	cfg     Config
	journal *Journal
	wake    chan struct{}

	// of Run's goroutine
	record Record
	boot   Boot
	nonce  string
	asked  time.Time // by the monotonic clock
	judged time.Duration
	have   int64 // bytes of the artifact that are in the slot
	limit  *rate.Limiter

	mu        sync.Mutex
	told      firmwarev1.DeviceFirmwareSpec
	release   *firmwarev1.Release
	heard     bool   // the control plane, or the device's own disk, has said what is wanted
	interrupt func() // ends a download whose release is not wanted any more
	working   string // the assignment that is downloaded
	status    firmwarev1.DeviceFirmwareStatus
	holds     map[string]holding // by the SHA-256
}

// New opens the journal.
func New(cfg Config) (*Device, error) {
	if cfg.Tries == 0 {
		cfg.Tries = DefaultTries
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.HTTP == nil {
		cfg.HTTP = NewClient()
	}
	journal, record, damaged, err := OpenJournal(cfg.Dir, cfg.Now())
	if err != nil {
		return nil, err
	}
	if damaged != "" {
		cfg.Logger.Error("the firmware journal is damaged and was set aside; the bootloader's record says what is safe", "aside", damaged)
	}
	d := &Device{cfg: cfg, journal: journal, record: record, wake: make(chan struct{}, 1)}
	if cfg.Rate > 0 {
		d.limit = rate.NewLimiter(rate.Limit(cfg.Rate), int(max(cfg.Rate/4, 1<<10)))
	}
	d.publish()
	return d, nil
}

// SetReporter sets where statuses go, before Run.
func (d *Device) SetReporter(report func(firmwarev1.DeviceFirmwareStatus)) { d.cfg.Report = report }

// SetNeighbours sets whom to share with, before Run.
func (d *Device) SetNeighbours(n Neighbours) { d.cfg.Neighbours = n }

// SetCheck sets the health checks, before Run.
func (d *Device) SetCheck(check func(ctx context.Context, h *firmwarev1.Health) error) {
	d.cfg.Check = check
}

// SetReached sets how the device knows that it is connected, before Run.
func (d *Device) SetReached(reached func() bool) { d.cfg.Reached = reached }

// Tell says what is wanted, and the release that it is about; nil: nothing.
func (d *Device) Tell(spec *firmwarev1.DeviceFirmwareSpec, release *firmwarev1.Release) {
	if spec == nil {
		spec = &firmwarev1.DeviceFirmwareSpec{}
	}
	d.mu.Lock()
	d.told, d.release, d.heard = *tagged.Copy(spec), release, true
	if d.interrupt != nil && (spec.Assignment == nil || spec.Assignment.ID != d.working) {
		d.interrupt()
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Status is what was last reported; ok is false before the first time.
func (d *Device) Status() (s firmwarev1.DeviceFirmwareStatus, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status, d.status.Backend != ""
}

// Close closes the journal, if Run has not: not while it runs.
func (d *Device) Close() error { return d.journal.Close() }

// Run goes on with the update that was under way, and with what it is told, until ctx ends.
func (d *Device) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.journal.Close()) }()
	pause := retryFirst
	for ctx.Err() == nil {
		err := d.live(ctx)
		if ctx.Err() != nil {
			return nil
		}
		// A disk that does not write, a bootloader's record that cannot be read: what runs goes on, and it is tried again.
		d.cfg.Logger.Error("the firmware is left as it is, trying again", "err", err, "in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMost)
	}
	return nil
}

// outcome is what an action has come to.
type outcome struct {
	event           Event
	reason, message string
}

// live steps until something fails.
func (d *Device) live(ctx context.Context) error {
	var last outcome
	for ctx.Err() == nil {
		boot, err := d.cfg.Backend.Boot(ctx)
		if err != nil {
			return fmt.Errorf("the bootloader's record: %w", err)
		}
		d.boot = boot
		d.mu.Lock()
		told, release, heard := d.told, d.release, d.heard
		d.mu.Unlock()
		if !heard && d.record.State != firmwarev1.Armed && d.record.State != firmwarev1.Trial {
			told.Assignment = d.record.Assignment // not knowing is not being told to stop
		}
		refusal := d.refusal(told.Assignment, release)
		in := Input{
			Refusal: refusal,
			Record:  d.record, Boot: boot, BootID: d.cfg.BootID, PowerOn: d.cfg.PowerOn, Hardware: d.cfg.HardwareID,
			Connected: d.cfg.Reached != nil && d.cfg.Reached(),
			Other:     Other(boot.Booted), Told: told.Assignment, Leave: d.mayGo(&told),
			Event: last.event, Reason: last.reason, Message: last.message,
		}
		record, action := Step(in)
		if err := d.journal.Save(record); err != nil {
			return err
		}
		if record.State != d.record.State {
			d.cfg.Logger.Info("firmware", "state", record.State, "reason", record.Reason, "message", record.Message, "slot", record.Slot)
		}
		d.record = record
		d.publish()
		if last, err = d.carryOut(ctx, action, &told); err != nil {
			return err
		}
	}
	return nil
}

// refusal asks whether a new assignment is signed. One that was taken was asked before.
func (d *Device) refusal(told *firmwarev1.Assignment, release *firmwarev1.Release) string {
	if told == nil || d.record.Assignment != nil && d.record.Assignment.ID == told.ID {
		return ""
	}
	if _, bundles := d.cfg.Backend.(Installer); bundles != (told.Artifact.Type == firmwarev1.Bundle) {
		if bundles {
			return "this device installs bundles, not images"
		}
		return "this device installs images, not bundles"
	}
	if len(d.cfg.Root) == 0 {
		return ""
	}
	if d.record.Trust == nil {
		d.record.Trust = &trust.State{Root: d.cfg.Root}
	}
	var signed *firmwarev1.SignedMetadata
	if release != nil && release.Name == told.Release {
		signed = release.Spec.Metadata
	}
	next, err := trust.Verify(*d.record.Trust, told, signed, d.cfg.HardwareID, d.cfg.Now())
	if err != nil {
		return err.Error()
	}
	d.record.Trust = &next // saved with the step that takes the assignment
	return ""
}

// mayGo: the device's question was answered, the answer is still good, and it is time.
func (d *Device) mayGo(told *firmwarev1.DeviceFirmwareSpec) bool {
	return d.nonce != "" && told.Go != nil && told.Go.Nonce == d.nonce && time.Since(d.asked) < time.Duration(told.Go.Seconds)*time.Second &&
		inWindow(told.Assignment, d.cfg.Now())
}

func (d *Device) carryOut(ctx context.Context, action Action, told *firmwarev1.DeviceFirmwareSpec) (outcome, error) {
	backend := d.cfg.Backend
	switch action {
	case Download:
		d.have = d.record.Written
		d.report()
		return d.download(ctx)
	case Ask:
		return outcome{}, d.ask(ctx, told)
	case Arm:
		d.nonce = ""
		d.report()
		return outcome{event: Armed}, backend.Arm(ctx, d.record.Slot, d.cfg.Tries)
	case Refill:
		return outcome{}, backend.Refill(ctx, d.cfg.Tries)
	case Judge:
		return d.judge(ctx)
	case Commit:
		return outcome{event: CommitDone}, backend.Commit(ctx)
	case Revert:
		if err := backend.Revert(ctx); err != nil {
			return outcome{}, err
		}
		if d.boot.Booted == d.boot.Default {
			return outcome{}, nil
		}
		return outcome{}, d.restart(ctx)
	case Restart:
		return outcome{}, d.restart(ctx)
	}
	d.report()
	return outcome{}, d.wait(ctx, 0)
}

// restart restarts the device and waits for that.
func (d *Device) restart(ctx context.Context) error {
	d.report()
	d.cfg.Logger.Info("restarting", "slot", d.record.Slot, "state", d.record.State, "reason", d.record.Reason)
	if err := d.cfg.Backend.Restart(ctx); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	<-ctx.Done()
	return nil
}

// wait waits until something else is wanted, and no longer than a time that is not zero.
func (d *Device) wait(ctx context.Context, most time.Duration) error {
	var late <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-ctx.Done():
	case <-d.wake:
	case <-late:
	}
	return nil
}

// ask asks for leave to restart, when it is time, and waits for the answer. A question whose answer has ended is asked anew.
func (d *Device) ask(ctx context.Context, told *firmwarev1.DeviceFirmwareSpec) error {
	if now := d.cfg.Now(); !inWindow(told.Assignment, now) {
		d.nonce = ""
		d.report()
		return d.wait(ctx, untilWindow(told.Assignment.Window, now))
	}
	answered := told.Go != nil && told.Go.Nonce == d.nonce
	if d.nonce == "" || answered {
		var random [12]byte
		if _, err := rand.Read(random[:]); err != nil {
			return err
		}
		d.nonce, d.asked = hex.EncodeToString(random[:]), time.Now()
		d.report()
	}
	if told.Assignment != nil && told.Assignment.Window != nil {
		return d.wait(ctx, time.Minute)
	}
	return d.wait(ctx, 0)
}

// report tells the status if it has changed.
func (d *Device) report() {
	r := &d.record
	running := r.Slots[d.boot.Booted]
	s := firmwarev1.DeviceFirmwareStatus{
		HardwareID: d.cfg.HardwareID, Backend: d.cfg.Backend.Name(), Slot: d.boot.Booted, BootID: d.cfg.BootID,
		Version: running.Version, Counter: running.Counter, SHA256: running.SHA256,
		State: r.State, Reason: r.Reason, Message: r.Message, Floor: r.Floor,
	}
	if running.Version == "" {
		s.Version = d.cfg.Version
	}
	if a := r.Assignment; a != nil {
		s.Assignment = a.ID
		if r.State == firmwarev1.Downloading {
			s.Percent = int32(d.have * 100 / max(1, a.Artifact.Size))
		}
	}
	if r.State == firmwarev1.Staged {
		s.Asks = d.nonce
	}
	if r.State == firmwarev1.Trial && d.judged > 0 {
		s.State = firmwarev1.Probation
	}
	d.mu.Lock()
	same := d.status == s
	d.status = s
	d.mu.Unlock()
	if !same && d.cfg.Report != nil {
		d.cfg.Report(s)
	}
}
