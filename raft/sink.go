package raft

import (
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"

	"github.com/shoal-edge/shoal/store"
)

// What one transaction adds to a new file is bounded in objects and bytes.
const (
	receiveBatch = 1000
	receiveBytes = 4 << 20
)

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
	_ = s.pipe.Close() // it never fails
	if err := <-s.received; err != nil {
		return fmt.Errorf("receive a checkpoint: %w", err)
	}
	return s.checkpoint.replace(s.checkpoint.received(), s.head)
}

// Cancel drops what was received.
func (s *sink) Cancel() error {
	if s.pipe == nil {
		return nil
	}
	_ = s.pipe.CloseWithError(errors.New("canceled"))
	<-s.received //nolint:errcheck // it was cut off on purpose
	return os.RemoveAll(s.checkpoint.received())
}

// receive makes a checkpoint file of a stream, under another name.
func (s *sink) receive(r io.Reader) error {
	b, err := newBatch(s.checkpoint.received())
	if err != nil {
		return err
	}
	return b.close(readStream(r, func(h header) error {
		if h.Index != s.head.Index || h.Term != s.head.Term {
			return fmt.Errorf("it is of entry %d in term %d, not %d in %d", h.Index, h.Term, s.head.Index, s.head.Term)
		}
		if h.Cluster != s.head.Cluster && !s.head.Cluster.IsZero() {
			return fmt.Errorf("it is of the cluster %s, not of %s", h.Cluster, s.head.Cluster)
		}
		s.head = h
		if s.checkpoint.witness {
			s.head.Count = 0
		}
		return b.header(s.head)
	}, func(k, v []byte) error {
		if s.checkpoint.witness {
			return nil
		}
		return b.put(k, v)
	}))
}

// createCheckpoint makes a file of items that are sorted by key. It is not flushed yet.
func createCheckpoint(path string, head header, items []store.Item) error {
	b, err := newBatch(path)
	if err != nil {
		return err
	}
	err = b.header(head)
	for i := 0; err == nil && i < len(items); i++ {
		err = b.item(&items[i])
	}
	return b.close(err)
}

// batch adds items to a new file, some hundreds in a transaction. The file is flushed when it is put in its place.
type batch struct {
	db    *bbolt.DB
	tx    *bbolt.Tx
	items *bbolt.Bucket
	count int
	bytes int // in this transaction
}

func newBatch(path string) (*batch, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	opts := boltOptions()
	opts.NoSync, opts.NoGrowSync = true, true
	db, err := openBolt(path, opts)
	if err != nil {
		return nil, err
	}
	return &batch{db: db}, nil
}

// close finishes the file, unless there was an error.
func (b *batch) close(err error) error {
	err = errors.Join(err, b.end(err == nil))
	return errors.Join(err, b.db.Close())
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
	return b.add(k, v)
}

func (b *batch) item(item *store.Item) error {
	k := itemKey(item.Key)
	return b.add(k, encodeItem(k, *item))
}

func (b *batch) add(k, v []byte) error {
	if err := b.begin(); err != nil {
		return err
	}
	if err := b.items.Put(k, v); err != nil {
		return err
	}
	b.bytes += len(k) + len(v)
	if b.count++; b.count%receiveBatch == 0 || b.bytes >= receiveBytes {
		b.bytes = 0
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
