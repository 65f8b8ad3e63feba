package chunks_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/shoal-edge/shoal/firmware/chunks"
)

// image is some megabytes of what file systems hold: text that compresses, data that does not, zeros, and things that are there twice.
func image(seed uint64, size int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	var all []byte
	for len(all) < size {
		piece := make([]byte, 1+random.IntN(200<<10))
		switch random.IntN(4) {
		case 0:
			for i := range piece {
				piece[i] = "the quick brown fox "[random.IntN(20)]
			}
		case 1:
			for i := range piece {
				piece[i] = byte(random.Uint32())
			}
		case 2:
			if len(all) > len(piece) {
				from := random.IntN(len(all) - len(piece))
				copy(piece, all[from:])
			}
		}
		all = append(all, piece...)
	}
	return all[:size]
}

func pack(t testing.TB, image []byte) (packed []byte, index *chunks.Index, sum chunks.Summary) {
	t.Helper()
	var out bytes.Buffer
	sum, err := chunks.Pack(&out, bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	packed = out.Bytes()
	if int64(len(packed)) != sum.Size {
		t.Fatalf("%d bytes, and the summary says %d", len(packed), sum.Size)
	}
	body := sum.Size - sum.IndexSize
	digest := sha256.Sum256(packed[body:])
	if hex.EncodeToString(digest[:]) != sum.IndexSHA256 {
		t.Fatal("the index has another hash than the summary says")
	}
	if index, err = chunks.Parse(packed[body:], body); err != nil {
		t.Fatal(err)
	}
	return packed, index, sum
}

func TestPack(t *testing.T) {
	unpacker, err := chunks.NewUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	defer unpacker.Close()
	for _, size := range []int{0, 1, 4096, 8 << 20} {
		want := image(7, size)
		packed, index, sum := pack(t, want)
		if len(index.Chunks) != sum.Pieces || sum.Distinct > sum.Pieces || index.Size != int64(size) {
			t.Errorf("%d bytes: %+v, and the index has %d pieces", size, sum, len(index.Chunks))
		}
		var got []byte
		for i := range index.Chunks {
			c := &index.Chunks[i]
			data, err := unpacker.Unpack(c, packed[c.At:c.At+int64(c.Stored)])
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, data...)
			damaged := bytes.Clone(packed[c.At : c.At+int64(c.Stored)])
			damaged[len(damaged)/2] ^= 4
			if _, err := unpacker.Unpack(c, damaged); err == nil {
				t.Fatal("a damaged piece is taken for whole")
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: what comes out is not what went in", size)
		}
		if size > 1<<20 && (sum.Size > int64(size)*2/3 || sum.Distinct == sum.Pieces) {
			t.Errorf("%d bytes are packed in %d, %d pieces of %d", size, sum.Size, sum.Distinct, sum.Pieces)
		}
	}
}

// Releases that differ in a few places, also by bytes that were put in, have nearly all pieces in common.
func TestCommonPieces(t *testing.T) {
	before := image(1, 8<<20)
	var after []byte
	for i := range 8 {
		part := bytes.Clone(before[i<<20 : (i+1)<<20])
		part[1000] ^= 1
		after = append(append(after, part...), "a few bytes more"...)
	}
	have := map[chunks.ID]bool{}
	if err := chunks.Cut(bytes.NewReader(before), func(id chunks.ID, _ []byte) error { have[id] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	_, index, _ := pack(t, after)
	var fresh int64
	for _, c := range index.Chunks {
		if !have[c.ID] {
			fresh += int64(c.Length)
		}
	}
	if fresh == 0 || fresh > 2<<20 {
		t.Errorf("%d bytes of %d are new, for 16 changed places", fresh, len(after))
	}
}

// How images are cut is part of the form: releases that were packed by another shoal have the same pieces.
func TestCutIsFixed(t *testing.T) {
	var ids []byte
	err := chunks.Cut(bytes.NewReader(image(3, 4<<20)), func(id chunks.ID, data []byte) error {
		if len(data) > chunks.MaxLength {
			t.Errorf("a piece of %d bytes", len(data))
		}
		ids = append(ids, id[:]...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(ids)
	if got, want := hex.EncodeToString(sum[:8]), "994dce9d02ad7e3d"; got != want {
		t.Errorf("images are cut in another way than they were: %s", got)
	}
	failed := errors.New("failed")
	if err := chunks.Cut(io.MultiReader(bytes.NewReader(image(3, 1<<20)), broken{failed}), func(chunks.ID, []byte) error { return nil }); !errors.Is(err, failed) {
		t.Errorf("an image that breaks off: %v", err)
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func TestParseRefuses(t *testing.T) {
	packed, _, sum := pack(t, image(5, 1<<20))
	body := sum.Size - sum.IndexSize
	good := packed[body:]
	for name, c := range map[string]struct {
		data   []byte
		stored int64
	}{
		"nothing":                        {nil, body},
		"another version":                {append([]byte{9}, good[1:]...), body},
		"cut off":                        {good[:len(good)-1], body},
		"too long":                       {append(bytes.Clone(good), 0), body},
		"a pack of another size":         {good, body - 1},
		"more pieces than bytes":         {[]byte{1, 10, 200, 1}, 0},
		"a piece of later":               {[]byte{1, 10, 1, 0, 0}, 0},
		"a piece that is stored longer":  {append([]byte{1, 1, 1, 1, 2}, make([]byte, 16)...), 2},
		"a piece that is stored nowhere": {append([]byte{1, 1, 1, 1, 0}, make([]byte, 16)...), 0},
		"a piece that is too long":       {append([]byte{1, 0x81, 0x80, 8, 1, 0x81, 0x80, 8, 1}, make([]byte, 16)...), 1},
	} {
		if _, err := chunks.Parse(c.data, c.stored); !errors.Is(err, chunks.ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	packed, _, sum := pack(f, image(5, 256<<10))
	body := sum.Size - sum.IndexSize
	f.Add(packed[body:], body)
	f.Fuzz(func(t *testing.T, data []byte, stored int64) {
		index, err := chunks.Parse(data, stored)
		if err != nil {
			return
		}
		var offset int64
		for i, c := range index.Chunks {
			if c.Offset != offset || c.Length < 1 || c.Length > chunks.MaxLength || c.Stored < 1 || c.Stored > c.Length ||
				c.At < 0 || c.At+int64(c.Stored) > stored {
				t.Fatalf("piece %d: %+v", i, c)
			}
			offset += int64(c.Length)
		}
		if offset != index.Size {
			t.Fatalf("pieces of %d bytes, and a size of %d", offset, index.Size)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	packed, index, _ := pack(f, image(5, 256<<10))
	c := index.Chunks[0]
	f.Add(packed[c.At:c.At+int64(c.Stored)], c.Length)
	unpacker, err := chunks.NewUnpacker()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(unpacker.Close)
	f.Fuzz(func(t *testing.T, stored []byte, length int32) {
		if len(stored) == 0 || len(stored) > chunks.MaxLength || length < int32(len(stored)) || length > chunks.MaxLength {
			return
		}
		data, err := unpacker.Unpack(&chunks.Chunk{ID: c.ID, Length: length, Stored: int32(len(stored))}, stored)
		if err == nil && chunks.IDOf(data) != c.ID {
			t.Fatal("another piece is taken for the one that was asked for")
		}
	})
}
