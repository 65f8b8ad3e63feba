package firmware

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	chunkSize  = 256 << 10 // what is read and written at once
	journalGap = 16 << 20  // how much is written between two notes in the journal
)

// newClient bounds every wait but that for the body, which may take days on a slow link; a body that stands still is ended by download.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       time.Second,
	}}
}

// errMedium is an error of the slot, not of the network.
var errMedium = errors.New("the slot")

// download fills the slot, from where it was, and reads it back from the medium. The network may be gone for days meanwhile.
func (d *Device) download(ctx context.Context) (outcome, error) {
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
	out, err := d.fillAndProve(ctx, slot)
	return out, errors.Join(err, slot.Close())
}

func (d *Device) fillAndProve(ctx context.Context, slot Slot) (outcome, error) {
	a := d.record.Assignment
	for again := false; ; again = true {
		if err := d.fill(ctx, slot); err != nil {
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

// fill fetches what is missing, through all failures of the network.
func (d *Device) fill(ctx context.Context, slot Slot) error {
	pause := retryFirst
	for d.record.Written < d.record.Assignment.Artifact.Size {
		before := d.record.Written
		err := d.fetch(ctx, slot)
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, errMedium) || errors.Is(err, errJournal) {
			return err
		}
		if d.record.Written > before {
			pause = retryFirst
		}
		d.record.Message = "waiting for the artifact: " + err.Error()
		d.report()
		if err := d.pause(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, retryMost)
	}
	d.record.Message = ""
	return nil
}

var errJournal = errors.New("the journal")

// fetch gets the artifact from where the slot ends until it is whole or the connection fails.
func (d *Device) fetch(ctx context.Context, slot Slot) error {
	a := &d.record.Assignment.Artifact
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := d.open(ctx, a.URL, d.record.Written)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	stalled := time.AfterFunc(time.Minute, cancel)
	defer stalled.Stop()
	buffer, at, saved := make([]byte, chunkSize), d.record.Written, d.record.Written
	for at < a.Size {
		n, readErr := io.ReadFull(body, buffer[:min(chunkSize, a.Size-at)])
		if n > 0 {
			stalled.Reset(time.Minute)
			if _, err := slot.WriteAt(buffer[:n], at); err != nil {
				return fmt.Errorf("%w: %w", errMedium, err)
			}
			at += int64(n)
		}
		if readErr != nil || at == a.Size || at-saved >= journalGap {
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
	d.record.Written = written
	if err := d.journal.Save(d.record); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	d.report()
	return nil
}

// open asks for the artifact from an offset on (RFC 9110, section 14).
func (d *Device) open(ctx context.Context, url string, offset int64) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		request.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	response, err := d.cfg.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	switch {
	case response.StatusCode == http.StatusPartialContent &&
		strings.HasPrefix(response.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(offset, 10)+"-"):
		return response.Body, nil
	case response.StatusCode == http.StatusOK: // a server that knows no ranges
		if _, err := io.CopyN(io.Discard, response.Body, offset); err != nil {
			return nil, errors.Join(err, response.Body.Close())
		}
		return response.Body, nil
	}
	return nil, errors.Join(fmt.Errorf("%s: %s", url, response.Status), response.Body.Close())
}

// digestOf reads a slot's first bytes from the medium.
func digestOf(ctx context.Context, slot Slot, size int64) (string, error) {
	sum, buffer := sha256.New(), make([]byte, chunkSize)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := slot.ReadAt(buffer[:min(chunkSize, size-at)], at)
		if n == 0 && err != nil {
			return "", err
		}
		_, _ = sum.Write(buffer[:n]) // a hash takes everything
		at += int64(n)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
