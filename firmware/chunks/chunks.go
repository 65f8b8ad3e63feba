// Package chunks owns the form in which a release goes over the wire piece by piece: cut by its content, each piece compressed, and an
// index of the pieces. Whoever has another release on its disk cuts that in the same way, finds most of the pieces there, and fetches the
// rest. Nobody has to make a patch for each pair of releases.
//
// A pack is a file: the stored pieces one after the other, then the index. A piece is a frame of Zstandard (RFC 8878), or the bytes as
// they are where that is not shorter. Pieces that are equal are stored once, where the first of them is.
//
// The index is a version byte and, as uvarints, the image's size and the number of pieces. Then comes each piece in the order of the image:
// its length and the length of what is stored, as uvarints, and its ID; or, for one that is equal to an earlier one, 0 and the number of
// that one.
package chunks

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/restic/chunker"

	"github.com/shoal-edge/shoal/uvarint"
)

// How images are cut. All releases have to be cut alike, or none of their pieces are equal.
const (
	polynomial  = chunker.Pol(0x3f5867da9e3459)
	averageBits = 15 // 32 KiB
	minLength   = 8 << 10
	// MaxLength is the longest piece, in bytes.
	MaxLength = 128 << 10
)

const (
	version = 1
	// maxImage bounds images, in bytes.
	maxImage = 1 << 40
)

// ID is the first half of the SHA-256 of a piece. That is enough to know pieces apart, for nobody gains by two that are alike: who makes the
// index makes all of them, and the image as a whole is compared with its full hash.
type ID [16]byte

// IDOf is the ID of a piece.
func IDOf(data []byte) (id ID) {
	sum := sha256.Sum256(data)
	copy(id[:], sum[:])
	return id
}

// Chunk is one piece.
type Chunk struct {
	ID ID
	// Offset and Length are where it is in the image, in bytes; At and Stored where it is in the pack.
	Offset, At     int64
	Length, Stored int32
}

// Index says what an image is made of.
type Index struct {
	// Size is the image's, in bytes.
	Size int64
	// Chunks are in the order of the image, without a gap.
	Chunks []Chunk
}

// ErrIndex is wrapped by the errors of Parse.
var ErrIndex = errors.New("not an index of chunks")

// Parse reads an index. The pieces before it in the pack have so many bytes.
func Parse(data []byte, stored int64) (*Index, error) {
	if len(data) == 0 || data[0] != version {
		return nil, fmt.Errorf("%w that this shoal knows", ErrIndex)
	}
	r := uvarint.Reader{Rest: data[1:]}
	size, count := r.Uvarint(), r.Count()
	if size > maxImage || r.Bad {
		return nil, fmt.Errorf("%w: %d pieces of %d bytes in all", ErrIndex, count, size)
	}
	x := &Index{Size: int64(size), Chunks: make([]Chunk, 0, count)}
	var offset, at int64
	for i := range count {
		c := Chunk{Offset: offset, At: at}
		switch length := r.Uvarint(); {
		case r.Bad:
		case length == 0:
			first := r.Uvarint()
			if first >= i {
				return nil, fmt.Errorf("%w: piece %d is equal to %d, which comes later", ErrIndex, i, first)
			}
			c = x.Chunks[first]
			c.Offset = offset
		case length > MaxLength:
			return nil, fmt.Errorf("%w: piece %d has %d bytes", ErrIndex, i, length)
		default:
			short := r.Uvarint()
			if short == 0 || short > length {
				return nil, fmt.Errorf("%w: piece %d of %d bytes is stored in %d", ErrIndex, i, length, short)
			}
			c.Length, c.Stored = int32(length), int32(short)
			copy(c.ID[:], r.Take(uint64(len(c.ID))))
			at += int64(short)
		}
		offset += int64(c.Length)
		x.Chunks = append(x.Chunks, c)
	}
	switch {
	case r.Bad || len(r.Rest) > 0:
		return nil, fmt.Errorf("%w: wrong length", ErrIndex)
	case offset != x.Size || at != stored:
		return nil, fmt.Errorf("%w: its pieces have %d bytes and are stored in %d, not %d and %d", ErrIndex, offset, at, x.Size, stored)
	}
	return x, nil
}

// Cut cuts what is read into pieces, and calls each for one after the other. The bytes are good until it returns.
func Cut(from io.Reader, each func(id ID, data []byte) error) error {
	cutter := chunker.NewWithBoundaries(from, polynomial, minLength, MaxLength)
	cutter.SetAverageBits(averageBits)
	buffer := make([]byte, MaxLength)
	for {
		piece, err := cutter.Next(buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = each(IDOf(piece.Data), piece.Data)
		}
		if err != nil {
			return err
		}
	}
}
