package firmware

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

const (
	pieceSize = 256 << 10 // what is read and written at once
	syncGap   = 16 << 20  // how much is written before it has to be on the medium
)

// Errors that no other attempt mends: of the slot, of the journal, and of the form in which the release is offered.
var (
	errMedium  = errors.New("the slot")
	errJournal = errors.New("the journal")
	errChunks  = errors.New("the chunks")
)

// download fills the slot, from where it was, and reads it back from the medium. The network may be gone for days meanwhile.
func (d *Device) download(ctx context.Context) (out outcome, err error) {
	a := d.record.Assignment
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	if d.heard && (d.told.Assignment == nil || d.told.Assignment.ID != a.ID) {
		d.mu.Unlock()
		return outcome{}, nil
	}
	d.interrupt, d.working = cancel, a.ID
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.interrupt = nil
		d.mu.Unlock()
	}()
	slot, err := d.cfg.Backend.Open(ctx, d.record.Slot)
	if err != nil {
		return outcome{Failed, "NoSlot", err.Error()}, nil
	}
	if n := d.cfg.Neighbours; n != nil {
		end := n.Turn(ctx, Name(a.Artifact.SHA256), func(neighbour string) {
			d.record.Message = "waiting for " + neighbour + ", which fetches it"
			d.report()
		})
		d.record.Message = ""
		defer func() { end(out.event == Finished) }()
	}
	out, err = d.fillAndProve(ctx, slot)
	if err := errors.Join(err, slot.Close()); err != nil || out.event != Finished {
		return out, err
	}
	return d.install(ctx)
}

func (d *Device) fillAndProve(ctx context.Context, slot Slot) (outcome, error) {
	a := d.record.Assignment
	for again := false; ; again = true {
		if err := d.fill(ctx, slot, again); err != nil {
			switch {
			case ctx.Err() != nil:
				return outcome{}, nil
			case errors.Is(err, errMedium):
				return outcome{Failed, "WriteError", err.Error()}, nil
			}
			return outcome{}, err
		}
		sum, err := digestOf(ctx, slot, a.Artifact.Size)
		switch {
		case ctx.Err() != nil:
			return outcome{}, nil
		case err != nil:
			return outcome{Failed, "ReadError", err.Error()}, nil
		case sum == a.Artifact.SHA256:
			return outcome{event: Finished}, nil
		case again:
			return outcome{Failed, "WrongContent", fmt.Sprintf("the slot holds %s, and the release is %s", sum, a.Artifact.SHA256)}, nil
		}
		// What was there before a power cut may be damaged: once more from the beginning.
		d.record.Written = 0
		if err := d.journal.Save(d.record); err != nil {
			return outcome{}, err
		}
	}
}

// install has a backend that takes bundles put it into the slot.
func (d *Device) install(ctx context.Context) (outcome, error) {
	installer, ok := d.cfg.Backend.(Installer)
	if !ok {
		return outcome{event: Finished}, nil
	}
	d.record.Message = "installing"
	d.report()
	err := installer.Install(ctx, d.record.Slot, d.record.Assignment.Artifact.Size)
	d.record.Message = ""
	switch {
	case ctx.Err() != nil:
		return outcome{}, nil
	case err != nil:
		return outcome{Failed, "NotInstalled", err.Error()}, nil
	}
	return outcome{event: Finished}, nil
}

// fill fetches what is missing, through all failures of the network. alone: nobody but the release's own server is asked.
func (d *Device) fill(ctx context.Context, slot Slot, alone bool) error {
	a := &d.record.Assignment.Artifact
	d.have = d.record.Written
	if a.Chunks != nil && d.record.Written == 0 {
		err := d.assemble(ctx, slot)
		if !errors.Is(err, errChunks) {
			return err
		}
		d.cfg.Logger.Warn("the release's chunks cannot be used, all of it is fetched", "err", err)
		d.have = 0
	}
	return d.persist(ctx, func() error {
		if !alone {
			for _, s := range d.nearby() {
				body, err := s.open(ctx, d.record.Written, toEnd)
				if err == nil {
					err = errors.Join(d.stream(slot, body), body.Close())
				}
				if err == nil || ctx.Err() != nil || errors.Is(err, errMedium) || errors.Is(err, errJournal) {
					return err
				}
				d.cfg.Logger.Debug("a source of firmware has not all of it", "source", s.name, "err", err)
			}
		}
		body, _, err := d.get(ctx, a.URL, d.record.Written, toEnd)
		if err != nil {
			return err
		}
		return errors.Join(d.stream(slot, body), body.Close())
	})
}

// persist tries until it succeeds, and waits longer between attempts that get nothing.
func (d *Device) persist(ctx context.Context, attempt func() error) error {
	pause := retryFirst
	for {
		before := d.have
		err := attempt()
		if err == nil {
			d.record.Message = ""
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, errMedium) || errors.Is(err, errJournal) || errors.Is(err, errChunks) {
			return err
		}
		if d.have > before {
			pause = retryFirst
		}
		d.record.Message = "waiting for the artifact: " + err.Error()
		d.report()
		if err := d.pause(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, retryMost)
	}
}

// stream writes what comes after what the slot has, until it is whole or nothing comes any more.
func (d *Device) stream(slot Slot, body io.Reader) error {
	size := d.record.Assignment.Artifact.Size
	buffer, at, saved := make([]byte, pieceSize), d.record.Written, d.record.Written
	for at < size {
		n, readErr := io.ReadFull(body, buffer[:min(pieceSize, size-at)])
		if n > 0 {
			if _, err := slot.WriteAt(buffer[:n], at); err != nil {
				return fmt.Errorf("%w: %w", errMedium, err)
			}
			at += int64(n)
		}
		if readErr != nil || at == size || at-saved >= syncGap {
			if err := d.keep(slot, at); err != nil {
				return err
			}
			saved = at
		}
		if readErr != nil {
			return readErr
		}
	}
	return nil
}

// keep makes what is written durable, and then notes it.
func (d *Device) keep(slot Slot, written int64) error {
	if err := slot.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errMedium, err)
	}
	d.record.Written, d.have = written, written
	if err := d.journal.Save(d.record); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	d.report()
	return nil
}

// digestOf reads a slot's first bytes from the medium.
func digestOf(ctx context.Context, slot Slot, size int64) (string, error) {
	sum, buffer := sha256.New(), make([]byte, pieceSize)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := slot.ReadAt(buffer[:min(pieceSize, size-at)], at)
		if n == 0 && err != nil {
			return "", err
		}
		_, _ = sum.Write(buffer[:n]) // a hash takes everything
		at += int64(n)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
