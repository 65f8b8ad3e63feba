package chunks

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

// Summary is what a release has to say of a pack, for devices to fetch it.
type Summary struct {
	// Size is the pack's, in bytes, of which the last IndexSize are the index.
	Size, IndexSize int64
	// IndexSHA256 is the index's SHA-256, in hexadecimal digits.
	IndexSHA256 string
	// Pieces is how many there are, Distinct how many of them are stored.
	Pieces, Distinct int
}

// Pack cuts an image and writes the pack.
func Pack(to io.Writer, image io.Reader) (Summary, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Summary{}, err
	}
	defer func() { _ = encoder.Close() }()
	var (
		out    = bufio.NewWriterSize(to, 1<<20)
		sum    Summary
		size   int64
		first  = map[ID]int{}
		body   []byte
		packed []byte
	)
	err = Cut(image, func(id ID, data []byte) error {
		size += int64(len(data))
		number, known := first[id]
		if known {
			body = binary.AppendUvarint(append(body, 0), uint64(number))
			sum.Pieces++
			return nil
		}
		first[id] = sum.Pieces
		sum.Pieces++
		stored := data
		if packed = encoder.EncodeAll(data, packed[:0]); len(packed) < len(data) {
			stored = packed
		}
		body = binary.AppendUvarint(body, uint64(len(data)))
		body = binary.AppendUvarint(body, uint64(len(stored)))
		body = append(body, id[:]...)
		sum.Size += int64(len(stored))
		_, err := out.Write(stored)
		return err
	})
	if err != nil {
		return Summary{}, err
	}
	index := binary.AppendUvarint([]byte{version}, uint64(size))
	index = append(binary.AppendUvarint(index, uint64(sum.Pieces)), body...)
	if len(index) > firmwarev1.MaxIndex || size > maxImage {
		return Summary{}, fmt.Errorf("an image of %d bytes is too large to be cut", size)
	}
	digest := sha256.Sum256(index)
	sum.IndexSize, sum.IndexSHA256, sum.Distinct = int64(len(index)), hex.EncodeToString(digest[:]), len(first)
	sum.Size += sum.IndexSize
	if _, err := out.Write(index); err != nil {
		return Summary{}, err
	}
	return sum, out.Flush()
}

// Unpacker makes pieces of what is stored.
type Unpacker struct {
	decoder *zstd.Decoder
	buffer  []byte
}

// NewUnpacker returns an Unpacker; it is to be closed.
func NewUnpacker() (*Unpacker, error) {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxLength))
	if err != nil {
		return nil, err
	}
	return &Unpacker{decoder: decoder, buffer: make([]byte, 0, MaxLength)}, nil
}

// Unpack returns a piece, which is the one of the index; it is good until the next call.
func (u *Unpacker) Unpack(c *Chunk, stored []byte) ([]byte, error) {
	data := stored
	if c.Stored < c.Length {
		var err error
		if data, err = u.decoder.DecodeAll(stored, u.buffer[:0]); err != nil {
			return nil, fmt.Errorf("the piece at %d: %w", c.Offset, err)
		}
	}
	if len(data) != int(c.Length) || IDOf(data) != c.ID {
		return nil, fmt.Errorf("the piece at %d is another one than the index says", c.Offset)
	}
	return data, nil
}

// Close lets go of the memory.
func (u *Unpacker) Close() { u.decoder.Close() }
