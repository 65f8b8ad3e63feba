package raft

import (
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"

	"github.com/shoal-edge/shoal/store"
)

// receiveBatch bounds the objects that one transaction adds while a checkpoint is received.
const receiveBatch = 1000

// sink is a snapshot in the making. The library either calls persist through the state machine's snapshot, or writes the
// leader's stream into it.
type sink struct {
	checkpoint *checkpoint
	head       header

	pipe     *io.PipeWriter
	received chan error
}

// ID names the snapshot.
func (s *sink) ID() string { return s.head.meta().ID }

// persist writes this server's own state.
func (s *sink) persist(changes *store.Changes) error {
	s.head.Revision = changes.Revision
	return s.checkpoint.write(s.head, changes)
}

// Write takes a part of the leader's stream.
func (s *sink) Write(p []byte) (int, error) {
	if s.pipe == nil {
		var r *io.PipeReader
		r, s.pipe = io.Pipe()
		s.received = make(chan error, 1)
		go func() { // ends with the stream: Close and Cancel wait for it
			err := s.receive(r)
			r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
			s.received <- err
		}()
	}
	return s.pipe.Write(p)
}

// Close makes a received checkpoint the present one; of an own one nothing is left to do.
func (s *sink) Close() error {
	if s.pipe == nil {
		return nil
	}
	s.pipe.Close()
	if err := <-s.received; err != nil {
		return fmt.Errorf("receive a checkpoint: %w", err)
	}
	return s.checkpoint.replace(s.checkpoint.temp(), s.head)
}

// Cancel drops what was received.
func (s *sink) Cancel() error {
	if s.pipe == nil {
		return nil
	}
	s.pipe.CloseWithError(errors.New("canceled"))
	<-s.received
	return os.RemoveAll(s.checkpoint.temp())
}

// receive makes a checkpoint file of a stream, under another name. The file is flushed when it is put in its place.
func (s *sink) receive(r io.Reader) (err error) {
	path := s.checkpoint.temp()
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	opts := boltOptions()
	opts.NoSync, opts.NoGrowSync = true, true
	db, err := openBolt(path, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	b := batch{db: db}
	defer func() { err = errors.Join(err, b.end(err == nil)) }()
	return readStream(r, func(h header) error {
		if h.Index != s.head.Index || h.Term != s.head.Term {
			return fmt.Errorf("it is of entry %d in term %d, not %d in %d", h.Index, h.Term, s.head.Index, s.head.Term)
		}
		s.head = h
		return b.header(h)
	}, b.put)
}

// batch adds items to a new file, some hundreds in a transaction.
type batch struct {
	db    *bbolt.DB
	tx    *bbolt.Tx
	items *bbolt.Bucket
	count int
}

func (b *batch) begin() (err error) {
	if b.tx != nil {
		return nil
	}
	if b.tx, err = b.db.Begin(true); err != nil {
		return err
	}
	if b.items, err = b.tx.CreateBucketIfNotExists(bucketItems()); err != nil {
		return err
	}
	b.items.FillPercent = checkpointFill
	return nil
}

func (b *batch) header(h header) error {
	if err := b.begin(); err != nil {
		return err
	}
	return writeHeader(b.tx, h)
}

func (b *batch) put(k, v []byte) error {
	if _, err := decodeItem(k, v); err != nil {
		return err
	}
	if err := b.begin(); err != nil {
		return err
	}
	if err := b.items.Put(k, v); err != nil {
		return err
	}
	if b.count++; b.count%receiveBatch == 0 {
		return b.end(true)
	}
	return nil
}

func (b *batch) end(commit bool) error {
	tx := b.tx
	b.tx = nil
	switch {
	case tx == nil:
		return nil
	case commit:
		return tx.Commit()
	default:
		return tx.Rollback()
	}
}
