package board

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/test/powercut/disk"
)

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

// patience bounds each wait for the board, which is emulated.
const patience = 4 * time.Minute

// Bench has what all episodes share: the site, the images and the folder of the disks.
type Bench struct {
	builder *Builder
	site    *site
	export  *disk.Export
	folder  string
}

// NewBench starts a control plane in a folder. shoal is the binary for this machine.
func NewBench(ctx context.Context, dir, shoal string, builder *Builder) (b *Bench, err error) {
	b = &Bench{builder: builder, folder: filepath.Join(dir, "disks")}
	if err := errors.Join(os.MkdirAll(b.folder, 0o700), os.MkdirAll(builder.Dir, 0o700)); err != nil {
		return nil, err
	}
	if b.export, err = disk.Mount(b.folder); err != nil {
		return nil, err
	}
	if b.site, err = newSite(ctx, dir, shoal, builder.Dir); err != nil {
		return nil, errors.Join(err, b.export.Unmount())
	}
	return b, nil
}

// Close ends the control plane.
func (b *Bench) Close() error { return errors.Join(b.site.close(), b.export.Unmount()) }

// Plan is what happens in an episode.
type Plan struct {
	// Does is what the release does: see Builder.Slot.
	Does string
	// Packed: it is fetched in pieces.
	Packed bool
	// Cuts is how often the power fails on the way.
	Cuts int
	Seed uint64
}

func (p Plan) String() string {
	what := "a release that is " + p.Does
	if p.Packed {
		what += ", in pieces"
	}
	switch p.Cuts {
	case 0:
		return what
	case 1:
		return fmt.Sprintf("seed %d: %s, the power fails once", p.Seed, what)
	}
	return fmt.Sprintf("seed %d: %s, the power fails %d times", p.Seed, what, p.Cuts)
}

// Planned is the plan of a seed.
func Planned(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	does := []string{"good", "good", "good", "sick", "a panic"}[rng.IntN(5)]
	return Plan{Does: does, Cuts: 1 + rng.IntN(2), Packed: seed%2 == 0, Seed: seed} // fewer cuts than it has tries
}

// episode is a board in the middle of it.
type episode struct {
	*Bench
	disk *disk.Disk
	file string
	vm   *vm
	told []string
}

// Run has a new board be brought a release, and returns what happened. A good release has to be kept, and a bad one left, however often
// the power fails.
func (b *Bench) Run(ctx context.Context, p Plan) (told string, err error) {
	b.site.forget(ctx)
	files, err := b.site.boardFiles(ctx)
	if err != nil {
		return "", err
	}
	content, err := b.builder.Disk(ctx, files)
	if err != nil {
		return "", err
	}
	e := &episode{Bench: b, disk: disk.New(content)}
	if err := e.powerOn(); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nthe board: %s\nthe server: %s", err, e.vm.console, b.site.log)
		}
		e.disk.Off()
		err = errors.Join(err, e.vm.kill())
		e.export.Remove(e.file)
	}()
	if err := e.await(ctx, "1", "a", firmwarev1.Idle); err != nil {
		return "", err
	}
	image, err := b.builder.Slot(ctx, p.Does)
	if err != nil {
		return "", err
	}
	artifact, err := b.site.artifact(image, p.Packed)
	if err != nil {
		return "", err
	}
	if err := b.site.rollOut(ctx, artifact); err != nil {
		return "", err
	}
	began, before := time.Now(), b.site.sent.Load()
	rng := rand.New(rand.NewPCG(p.Seed, 1))
	for range p.Cuts {
		if err := e.cut(ctx, rng); err != nil {
			return "", err
		}
	}
	if p.Does == "good" {
		err = e.await(ctx, "2", "b", firmwarev1.Confirmed)
	} else {
		err = e.await(ctx, "1", "a", firmwarev1.RolledBack)
	}
	e.say("done after %.0f s, %.1f MB were fetched", time.Since(began).Seconds(), float64(b.site.sent.Load()-before)/1e6)
	return strings.Join(e.told, "; "), err
}

func (e *episode) say(format string, args ...any) {
	e.told = append(e.told, fmt.Sprintf(format, args...))
}

func (e *episode) powerOn() (err error) {
	if e.file, err = e.export.Add(e.disk.PowerOn()); err != nil {
		return err
	}
	e.vm, err = start(e.file)
	return err
}

// await waits until the board says that a version runs from a slot, and where it stands.
func (e *episode) await(ctx context.Context, version, slot string, state firmwarev1.State) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(e.vm.context(), func() { cancel(errors.New("QEMU has ended")) })
	defer stop()
	return eventually(ctx, patience, func() error {
		s, err := e.site.firmware(ctx)
		if err == nil && (s.Version != version || s.Slot != slot || s.State != state) {
			err = fmt.Errorf("the board says version %s, slot %s, %s (%s %s); want %s, %s, %s", s.Version, s.Slot, s.State, s.Reason, s.Message, version, slot, state)
		}
		return err
	})
}

// moments are when the power fails: when the board is seen in a state, or some time after.
var moments = []firmwarev1.State{ //nolint:gochecknoglobals // a constant that Go has no form for
	firmwarev1.Downloading, firmwarev1.Staged, firmwarev1.Trial, firmwarev1.Probation,
}

// cut takes the power away in a moment of the update, and gives it back.
func (e *episode) cut(ctx context.Context, rng *rand.Rand) (err error) {
	gone := make(chan struct{})
	remains := rand.New(rand.NewPCG(rng.Uint64(), 2))
	var when string
	if rng.IntN(2) == 0 {
		when, err = e.atRecord(ctx, rng, remains, gone)
	} else {
		when, err = e.atState(ctx, rng, remains, gone)
	}
	if err != nil {
		return err
	}
	e.disk.Cut() // if it is not gone
	if err := e.vm.kill(); err != nil {
		return err
	}
	e.export.Remove(e.file)
	e.say("%s, %s", when, e.disk.Lost())
	return e.powerOn()
}

// atRecord has the power fail in a write of the boot loader's record, or soon after: the board arms the new slot, U-Boot counts, and the
// board commits or reverts.
func (e *episode) atRecord(ctx context.Context, rng, remains *rand.Rand, gone chan struct{}) (when string, err error) {
	nth, later := 1+rng.IntN(3), rng.IntN(3)
	e.disk.PlanCutAt(envOffset, envOffset+disk.Sector, nth, later, remains, func() { close(gone) })
	err = eventually(ctx, patience, func() error {
		select {
		case <-gone:
			return nil
		default:
		}
		if s, err := e.site.firmware(ctx); err == nil && (s.State == firmwarev1.Confirmed || s.State == firmwarev1.RolledBack) {
			return nil // there were fewer writes
		}
		return errors.New("the power has not failed")
	})
	return fmt.Sprintf("%d operations after write %d of the record", later, nth), err
}

// atState has the power fail when the board is in a state, or some time later, in one of the operations of the disk that follow.
func (e *episode) atState(ctx context.Context, rng, remains *rand.Rand, gone chan struct{}) (when string, err error) {
	moment, later := moments[rng.IntN(len(moments))], time.Duration(rng.IntN(3000))*time.Millisecond
	if rng.IntN(2) == 0 {
		later = 0
	}
	var seen firmwarev1.State
	err = eventually(ctx, patience, func() error {
		s, err := e.site.firmware(ctx)
		if seen = s.State; err == nil && rank(seen) < rank(moment) {
			err = fmt.Errorf("the board is %s and was to be %s", seen, moment)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(later):
	}
	e.disk.PlanCut(1+rng.IntN(30), remains, func() { close(gone) })
	select {
	case <-gone:
	case <-time.After(2 * time.Second): // nothing is written
	}
	return fmt.Sprintf("%.1f s after %s", later.Seconds(), seen), nil
}

// rank is how far a state is.
func rank(s firmwarev1.State) int {
	for i, m := range moments {
		if m == s {
			return i
		}
	}
	switch s {
	case firmwarev1.Armed:
		return 1
	case firmwarev1.Committed, firmwarev1.Confirmed, firmwarev1.RolledBack, firmwarev1.Recovery:
		return len(moments)
	}
	return -1
}
