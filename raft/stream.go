package raft

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"go.etcd.io/bbolt"
)

// A checkpoint travels as a stream that does not depend on bbolt:
//
//	magic; the header as a frame with an empty key; one frame for each object; a frame with neither; SHA-256 of all before.
//
// A frame is the lengths of its key and its value, four bytes each, and both.
const (
	streamMagic  = "shoalcp1"
	frameSize    = 8
	maxFrameKey  = 1 << 10
	maxFrameBody = 8 << 20
)

// stream reads a checkpoint as of the moment that it was opened; writers go on meanwhile.
type stream struct {
	checkpoint *checkpoint
	handle     *handle
	tx         *bbolt.Tx
	cursor     *bbolt.Cursor
	head       header
	size       int64

	buffer  bytes.Buffer
	hash    hash.Hash
	started bool
	ended   bool
	closed  bool
}

func (c *checkpoint) stream() (*stream, error) {
	h, err := c.acquire()
	if err != nil {
		return nil, err
	}
	s := &stream{checkpoint: c, handle: h, hash: sha256.New()}
	err = guard(c.path, func() error {
		if s.tx, err = h.db.Begin(false); err != nil {
			return err
		}
		if s.head, err = readHeader(s.tx); err != nil {
			return err
		}
		s.cursor = s.tx.Bucket(bucketItems()).Cursor()
		s.size = int64(len(streamMagic) + frameSize + len(encodeHeader(s.head)) + frameSize + sha256.Size)
		for k, v := s.cursor.First(); k != nil; k, v = s.cursor.Next() {
			s.size += int64(frameSize + len(k) + len(v))
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(c.alarm.heed(err), s.Close())
	}
	return s, nil
}

func (s *stream) Read(p []byte) (int, error) {
	for s.buffer.Len() == 0 {
		if s.ended {
			return 0, io.EOF
		}
		if err := guard(s.checkpoint.path, s.fill); err != nil {
			return 0, s.checkpoint.alarm.heed(err)
		}
	}
	return s.buffer.Read(p)
}

// fill puts the next part into the buffer.
func (s *stream) fill() error {
	var k, v []byte
	if !s.started {
		s.started = true
		s.buffer.WriteString(streamMagic)
		s.frame(nil, encodeHeader(s.head))
		k, v = s.cursor.First()
	} else {
		k, v = s.cursor.Next()
	}
	if k != nil && (len(v) < crcSize || checksum(k, v[crcSize:]) != binary.BigEndian.Uint32(v)) {
		return &DamagedError{s.checkpoint.path, fmt.Errorf("the checksum of %q is wrong", k)}
	}
	s.frame(k, v)
	s.hash.Write(s.buffer.Bytes())
	if k == nil {
		s.ended = true
		s.buffer.Write(s.hash.Sum(nil))
	}
	return nil
}

func (s *stream) frame(k, v []byte) {
	var lengths [frameSize]byte
	binary.BigEndian.PutUint32(lengths[:], uint32(len(k)))
	binary.BigEndian.PutUint32(lengths[4:], uint32(len(v)))
	s.buffer.Write(lengths[:])
	s.buffer.Write(k)
	s.buffer.Write(v)
}

func (s *stream) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.tx != nil {
		err = s.tx.Rollback()
	}
	return errors.Join(err, s.checkpoint.release(s.handle))
}

// readStream checks a stream and hands over its header and then each item, as it is in the file. The item's memory is the
// receiver's. What was handed over may be trusted only if readStream returns nil.
func readStream(from io.Reader, head func(header) error, item func(k, v []byte) error) error {
	sum := sha256.New()
	buffered := bufio.NewReaderSize(from, 64<<10)
	r := io.TeeReader(buffered, sum)
	magic := make([]byte, len(streamMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != streamMagic {
		return errors.New("this is not a snapshot of shoal")
	}
	_, v, err := readFrame(r)
	if err != nil {
		return err
	}
	h, err := decodeHeader(v)
	if err != nil {
		return err
	}
	if err := head(h); err != nil {
		return err
	}
	count := uint64(0)
	for {
		k, v, err := readFrame(r)
		if err != nil {
			return err
		}
		if len(k) == 0 {
			break
		}
		count++
		if err := item(k, v); err != nil {
			return err
		}
	}
	want := sum.Sum(nil)
	have := make([]byte, sha256.Size)
	if _, err := io.ReadFull(buffered, have); err != nil || !bytes.Equal(want, have) || count != h.Count {
		return fmt.Errorf("the snapshot is damaged or cut off: its checksum or its %d objects (not %d) are wrong", count, h.Count)
	}
	if _, err := buffered.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("the snapshot is damaged: something follows its end"), err)
	}
	return nil
}

func readFrame(r io.Reader) (k, v []byte, err error) {
	var lengths [frameSize]byte
	if _, err := io.ReadFull(r, lengths[:]); err != nil {
		return nil, nil, fmt.Errorf("the snapshot is cut off: %w", err)
	}
	keyLength, valueLength := binary.BigEndian.Uint32(lengths[:]), binary.BigEndian.Uint32(lengths[4:])
	if keyLength > maxFrameKey || valueLength > maxFrameBody {
		return nil, nil, errors.New("the snapshot is damaged: an object is too large")
	}
	both := make([]byte, keyLength+valueLength)
	if _, err := io.ReadFull(r, both); err != nil {
		return nil, nil, fmt.Errorf("the snapshot is cut off: %w", err)
	}
	return both[:keyLength:keyLength], both[keyLength:], nil
}
