// Package firmware owns the update of one device: the journal of where it stands, the rules by which it goes on after any power cut,
// the download into the slot that does not run, and the interface to what boots the device. What runs is never touched: an update is
// whole in the other slot before the bootloader hears of it, by one write, and the bootloader falls back by itself.
package firmware

import (
	"context"
	"errors"
	"io"
)

// Boot is the bootloader's record, and what it has made of it.
type Boot struct {
	// Booted is the slot that runs. Default is the one that is booted when nothing is tried.
	Booted, Default string
	// Trying is the slot that boots try until it is committed or its tries are spent. Empty: none.
	Trying string
	// Spent: the tries of Trying are spent, and the bootloader has fallen back. Not every bootloader can tell.
	Spent bool
}

// Uses reports whether a slot runs, is tried, or is what the device falls back to: nobody writes to it then.
func (b *Boot) Uses(slot string) bool {
	return slot == b.Booted || slot == b.Default || slot == b.Trying
}

// Other is the slot beside one. There are two: a and b.
func Other(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// Slot is an open slot that does not run. What is written is on the medium once Sync has returned.
type Slot interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// Source is a slot that is only read.
type Source interface {
	io.ReaderAt
	io.Closer
}

// Backend is how a device is booted: one bootloader's A and B. A second one with the same promises passes the suite in
// firmware/conformance. But for Read, its methods are called by one goroutine.
type Backend interface {
	Name() string
	// Boot reads the record.
	Boot(ctx context.Context) (Boot, error)
	// Open opens the slot that does not run, for writing if it is to be filled. It fails for the one that runs, and while the slot is
	// being tried.
	Open(ctx context.Context, slot string) (Slot, error)
	// Read opens a slot to be read, also the one that runs. It may be called by several goroutines.
	Read(ctx context.Context, slot string) (Source, error)
	// Arm has the next boots try a slot, up to so many times, before they fall back to the default one. It is one write: after a power
	// cut it has happened or not.
	Arm(ctx context.Context, slot string, tries int) error
	// Refill gives the slot that is tried its tries back, after a boot that failed for no fault of its own.
	Refill(ctx context.Context, tries int) error
	// Commit makes the slot that is tried the default one, by one write.
	Commit(ctx context.Context) error
	// Revert has nothing tried any more, by one write: the next boot is the default one's.
	Revert(ctx context.Context) error
	// Restart restarts the device. It may return before that happens.
	Restart(ctx context.Context) error
}

// Installer is a backend that fills its slots itself: what Open opens is the place of a bundle, which Install takes from there.
type Installer interface {
	// Install puts the bundle of so many bytes into the slot. It can be done again after a power cut in the middle of it. Nothing is tried by it.
	Install(ctx context.Context, slot string, size int64) error
}

// Errors of backends.
var (
	ErrRunning = errors.New("that slot runs, or is about to be tried")
	ErrNoSlot  = errors.New("there is no such slot")
	ErrNoTrial = errors.New("no slot is being tried")
)
