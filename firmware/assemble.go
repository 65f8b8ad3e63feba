package firmware

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/firmware/chunks"
)

const (
	// nearEnough is how many bytes that are not wanted are fetched from outside rather than asking once more for what comes after them;
	// nextDoor is that of neighbours.
	nearEnough = 16 << 10
	nextDoor   = 256 << 10
	// searched is how much of the running release is looked through, as a multiple of the new one's size.
	searched = 2
)

// assembly puts a release together in a slot, piece by piece: what the slot has already, from an attempt that was cut off; what the
// running release has too; and the rest from elsewhere. Each piece is compared with its hash before it is written, so that it does not
// matter where it came from, and nothing has to be remembered over a power cut.
type assembly struct {
	d        *Device
	slot     Slot
	unpacker *chunks.Unpacker
	// index is nil until it was fetched.
	index *chunks.Index
	// missing are the pieces that are not in the slot, with all places where they belong.
	missing map[chunks.ID][]int64
	// unsynced counts the bytes that are written and may not be on the medium.
	unsynced int64
	searched bool // the running release was looked through
	whole    bool // the server knows no ranges
}

// badChunks is how often the pack may be another one than the release says, before all of the release is fetched instead: it may just
// be in the course of being put there.
const badChunks = 3

// assemble fills the slot by pieces, through all failures of the network.
func (d *Device) assemble(ctx context.Context, slot Slot) error {
	unpacker, err := chunks.NewUnpacker()
	if err != nil {
		return err
	}
	defer unpacker.Close()
	m, bad := &assembly{d: d, slot: slot, unpacker: unpacker}, 0
	return d.persist(ctx, func() error {
		err := m.fetch(ctx)
		if errors.Is(err, errChunks) {
			if bad++; bad < badChunks {
				return errors.New(err.Error())
			}
		}
		return err
	})
}

// fetch goes on until the release is whole, or something fails.
func (m *assembly) fetch(ctx context.Context) error {
	if m.index == nil {
		if err := m.open(ctx); err != nil {
			return err
		}
	}
	if !m.searched {
		if err := m.search(ctx); err != nil {
			return err
		}
		m.searched = true
	}
	for _, s := range m.d.nearby() {
		if err := m.take(ctx, s); err != nil && (ctx.Err() != nil || errors.Is(err, errMedium)) {
			return err
		} else if err != nil {
			m.d.cfg.Logger.Debug("a source of firmware has not all of it", "source", s.name, "err", err)
		}
	}
	if err := m.download(ctx); err != nil {
		return err
	}
	if err := m.slot.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errMedium, err)
	}
	return nil
}

// open fetches the index, and looks for what the slot has already.
func (m *assembly) open(ctx context.Context) error {
	a := &m.d.record.Assignment.Artifact
	if a.Chunks.IndexSize < 1 || a.Chunks.IndexSize > min(a.Chunks.Size, firmwarev1.MaxIndex) {
		return fmt.Errorf("%w: an index of %d bytes", errChunks, a.Chunks.IndexSize)
	}
	begin := a.Chunks.Size - a.Chunks.IndexSize
	body, whole, err := m.d.get(ctx, a.Chunks.URL, begin, a.Chunks.Size)
	if err != nil {
		return err
	}
	m.whole = whole
	data := make([]byte, a.Chunks.IndexSize)
	_, err = io.ReadFull(body, data)
	if err := errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("the index of chunks: %w", err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != a.Chunks.IndexSHA256 {
		return fmt.Errorf("%w: %s has another index than the release says", errChunks, a.Chunks.URL)
	}
	index, err := chunks.Parse(data, begin)
	if err == nil && index.Size != a.Size {
		err = fmt.Errorf("%d bytes, and the release has %d", index.Size, a.Size)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errChunks, a.Chunks.URL, err)
	}
	m.missing = map[chunks.ID][]int64{}
	buffer := make([]byte, chunks.MaxLength)
	for i := range index.Chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &index.Chunks[i]
		// What cannot be read, of a slot that is new or damaged, is written anew.
		n, _ := m.slot.ReadAt(buffer[:c.Length], c.Offset)
		if n == int(c.Length) && chunks.IDOf(buffer[:n]) == c.ID {
			m.d.have += int64(n)
		} else {
			m.missing[c.ID] = append(m.missing[c.ID], c.Offset)
		}
	}
	m.index = index
	m.d.report()
	return nil
}

// search looks through the running release for pieces of the new one.
func (m *assembly) search(ctx context.Context) error {
	if len(m.missing) == 0 {
		return nil
	}
	running, err := m.d.cfg.Backend.Read(ctx, m.d.boot.Booted)
	if err != nil { // then everything is fetched
		m.d.cfg.Logger.Debug("the running release cannot be read", "err", err)
		return nil
	}
	err = chunks.Cut(io.NewSectionReader(running, 0, searched*m.index.Size), func(id chunks.ID, data []byte) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return m.put(id, data)
	})
	switch err := errors.Join(err, running.Close()); {
	case ctx.Err() != nil, errors.Is(err, errMedium):
		return err
	case err != nil:
		m.d.cfg.Logger.Debug("the running release cannot be read", "err", err)
	}
	return nil
}

// put writes a piece wherever it is missing.
func (m *assembly) put(id chunks.ID, data []byte) error {
	places := m.missing[id]
	if len(places) == 0 {
		return nil
	}
	for _, offset := range places {
		if _, err := m.slot.WriteAt(data, offset); err != nil {
			return fmt.Errorf("%w: %w", errMedium, err)
		}
	}
	delete(m.missing, id)
	written := int64(len(data) * len(places))
	m.d.have += written
	if m.unsynced += written; m.unsynced >= syncGap { // so that little of the memory is taken by what waits for the medium
		m.unsynced = 0
		if err := m.slot.Sync(); err != nil {
			return fmt.Errorf("%w: %w", errMedium, err)
		}
		m.d.report()
	}
	return nil
}

// span is a part of what is fetched, with the pieces that are wanted of it.
type span struct {
	from, to int64
	wanted   []*chunks.Chunk
}

// spans are the parts in which the missing pieces are, between which there are more than gap bytes each. where says where a piece is.
func (m *assembly) spans(gap int64, where func(c *chunks.Chunk) (from, length int64)) (all []span) {
	seen := make(map[chunks.ID]bool, len(m.missing))
	for i := range m.index.Chunks {
		c := &m.index.Chunks[i]
		if len(m.missing[c.ID]) == 0 || seen[c.ID] {
			continue
		}
		seen[c.ID] = true
		from, length := where(c)
		if last := len(all) - 1; last >= 0 && from >= all[last].to && from-all[last].to <= gap {
			all[last].to = from + length
			all[last].wanted = append(all[last].wanted, c)
			continue
		}
		all = append(all, span{from, from + length, []*chunks.Chunk{c}})
	}
	return all
}

func inImage(c *chunks.Chunk) (from, length int64) { return c.Offset, int64(c.Length) }
func inPack(c *chunks.Chunk) (from, length int64)  { return c.At, int64(c.Stored) }

// take gets pieces from a source that has the release as it is. One that gives a wrong piece is asked no more.
func (m *assembly) take(ctx context.Context, s source) error {
	open := func(from, to int64) (io.ReadCloser, error) { return s.open(ctx, from, to) }
	return m.gather(nextDoor, inImage, open, func(c *chunks.Chunk, data []byte) ([]byte, error) {
		if chunks.IDOf(data) != c.ID {
			return nil, fmt.Errorf("the piece at %d is another one", c.Offset)
		}
		return data, nil
	})
}

// download gets pieces from the pack.
func (m *assembly) download(ctx context.Context) error {
	gap := int64(nearEnough)
	if m.whole {
		gap = math.MaxInt64
	}
	url := m.d.record.Assignment.Artifact.Chunks.URL
	open := func(from, to int64) (io.ReadCloser, error) {
		body, whole, err := m.d.get(ctx, url, from, to)
		m.whole = m.whole || whole
		return body, err
	}
	return m.gather(gap, inPack, open, func(c *chunks.Chunk, stored []byte) ([]byte, error) {
		data, err := m.unpacker.Unpack(c, stored)
		if err != nil {
			err = fmt.Errorf("%w: %s: %w", errChunks, url, err)
		}
		return data, err
	})
}

// gather gets the missing pieces from where they are in something else; piece makes a piece of what is read there, and proves it.
func (m *assembly) gather(
	gap int64, where func(c *chunks.Chunk) (from, length int64), open func(from, to int64) (io.ReadCloser, error),
	piece func(c *chunks.Chunk, read []byte) ([]byte, error),
) error {
	buffer := make([]byte, chunks.MaxLength)
	for _, part := range m.spans(gap, where) {
		body, err := open(part.from, part.to)
		if err != nil {
			return err
		}
		at := part.from
		err = func() error {
			for _, c := range part.wanted {
				from, length := where(c)
				if _, err := io.CopyN(io.Discard, body, from-at); err != nil {
					return err
				}
				if _, err := io.ReadFull(body, buffer[:length]); err != nil {
					return err
				}
				data, err := piece(c, buffer[:length])
				if err != nil {
					return err
				}
				if err := m.put(c.ID, data); err != nil {
					return err
				}
				at = from + length
			}
			return nil
		}()
		if err := errors.Join(err, body.Close()); err != nil {
			return err
		}
	}
	return nil
}
