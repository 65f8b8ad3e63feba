package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/raft/failpoint"
)

// A segment is a file of the log. It never changes its size and is never renamed: what is not needed any more is written over, so that
// a file system has nothing to note but the data.
//
// It is made of sectors, the unit that a disk writes as a whole, and every sector is sound at all times, from the making of the file
// on: it says with a checksum which batch it belongs to, or that it is blank. So after a power cut each sector of a batch is either
// new or what was there before, and both can be told from a sector that has gone bad.
//
// A sector begins, all big endian, with a checksum over the segment, the sector's place in it and all that follows (4 bytes), the
// number of the batch (8), which part of the batch this is and how many there are (2 each). In a blank one all that is 0.
const (
	sectorSize = 512
	sectorHead = 16
	sectorRoom = sectorSize - sectorHead
	// Batches begin and end with a block, so that what was flushed is never written again, also where the disk has larger sectors.
	blockSize    = 4096
	blockSectors = blockSize / sectorSize
	// maxParts bounds a batch: 31 MiB, by the size of a field.
	maxParts = 1<<16 - blockSectors
)

const (
	segmentSuffix = ".seg"
	// Segments have this size, or a 32nd of a small disk; one that is made for a very large entry has more.
	segmentSize    = 1 << 20
	segmentMinimum = 128 << 10
)

// segment is one that is open. Who has the log's writing lock may write to it.
type segment struct {
	id      uint64
	file    *os.File
	sectors uint32
	begins  uint64 // the number of its first batch, 0 while it is free
}

func (s *segment) path() string { return s.file.Name() }
func (s *segment) bytes() int64 { return int64(s.sectors) * sectorSize }

// sector is what a sector says of itself.
type sector struct {
	bad         bool
	batch       uint64
	part, parts uint16
}

func sumSector(segment uint64, at uint32, b []byte) uint32 {
	var place [12]byte
	binary.BigEndian.PutUint64(place[:], segment)
	binary.BigEndian.PutUint32(place[8:], at)
	return checksum(place[:], b[4:sectorSize])
}

// frameSector completes a sector that has its content.
func frameSector(b []byte, segment uint64, at uint32, s sector) {
	binary.BigEndian.PutUint64(b[4:], s.batch)
	binary.BigEndian.PutUint16(b[12:], s.part)
	binary.BigEndian.PutUint16(b[14:], s.parts)
	binary.BigEndian.PutUint32(b, sumSector(segment, at, b))
}

func readSector(b []byte, segment uint64, at uint32) sector {
	if binary.BigEndian.Uint32(b) != sumSector(segment, at, b) {
		return sector{bad: true}
	}
	s := sector{batch: binary.BigEndian.Uint64(b[4:]), part: binary.BigEndian.Uint16(b[12:]), parts: binary.BigEndian.Uint16(b[14:])}
	if s.batch > 0 && (s.part >= s.parts || s.parts%blockSectors != 0) {
		return sector{bad: true}
	}
	return s
}

// partsFor is how many sectors a content takes: whole blocks.
func partsFor(size int) uint32 {
	return uint32((size+sectorRoom*blockSectors-1)/(sectorRoom*blockSectors)) * blockSectors
}

// packBatch puts a content into sectors, for a place in a segment. The buffer may be used again.
func packBatch(buffer []byte, segment uint64, at uint32, batch uint64, content []byte) []byte {
	parts := partsFor(len(content))
	if size := int(parts) * sectorSize; cap(buffer) < size {
		buffer = make([]byte, size)
	} else {
		buffer = buffer[:size]
	}
	for i := range parts {
		b := buffer[i*sectorSize : (i+1)*sectorSize]
		n := copy(b[sectorHead:], content)
		content = content[n:]
		clear(b[sectorHead+n:])
		frameSector(b, segment, at+i, sector{batch: batch, part: uint16(i), parts: uint16(parts)})
	}
	return buffer
}

// blankSectors are what a new segment has.
func blankSectors(segment uint64, at, count uint32) []byte {
	b := make([]byte, count*sectorSize)
	for i := range count {
		frameSector(b[i*sectorSize:(i+1)*sectorSize], segment, at+i, sector{})
	}
	return b
}

func segmentPath(dir string, id uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", id, segmentSuffix))
}

// segmentID reads the name of a file.
func segmentID(name string) (id uint64, ok bool) {
	number, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(number, 10, 64)
	return id, err == nil && id > 0 && filepath.Base(segmentPath("", id)) == name
}

// usualSectors is the size of segments on the disk of a folder.
func usualSectors(dir string) (uint32, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	part := int64(s.Blocks) * int64(s.Bsize) / 32
	return uint32(max(segmentMinimum, min(segmentSize, part))/blockSize) * blockSectors, nil
}

// createSegment makes a blank segment. With a first batch in it, it is the first one of a log.
func createSegment(dir string, id uint64, sectors uint32, first []byte) (s *segment, err error) {
	path := segmentPath(dir, id)
	temp := path + ".new"
	content := blankSectors(id, 0, sectors)
	copy(content, first)
	err = os.WriteFile(temp, content, 0o600)
	if err == nil {
		failpoint.Hit("log.segment.before")
		err = replaceFile(temp, path) // flushes it
		failpoint.Hit("log.segment.after")
	}
	if err != nil {
		err = fmt.Errorf("make a segment of the log: %w", err)
		if gone := os.Remove(temp); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := forgetCached(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &segment{id: id, file: f, sectors: sectors}, nil
}

// forgetCached makes the kernel forget what it has of a file in memory. What is read is on the disk then; and where it is written, the
// kernel keeps pieces as large as the writes. In larger ones a write counts as one of all of the piece: against the memory for what is
// not on the disk yet, and in what the process is said to write.
func forgetCached(f *os.File) error {
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("forget what is cached of %s: %w", f.Name(), err)
	}
	return nil
}

// openSegment opens a segment and reads what is on the disk, not what an earlier process left in memory. The buffer may be used for it.
func openSegment(dir string, id uint64, buffer []byte) (s *segment, content []byte, err error) {
	f, err := os.OpenFile(segmentPath(dir, id), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.Size() <= 0 || info.Size()%blockSize != 0 || info.Size() > maxParts*sectorSize) {
		err = &DamagedError{f.Name(), fmt.Errorf("it has %d bytes", info.Size())}
	}
	if err == nil {
		err = forgetCached(f)
	}
	if err == nil {
		content = slices.Grow(buffer[:0], int(info.Size()))[:info.Size()]
		_, err = io.ReadFull(f, content)
	}
	if err == nil {
		err = forgetCached(f)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &segment{id: id, file: f, sectors: uint32(len(content) / sectorSize)}, content, nil
}
