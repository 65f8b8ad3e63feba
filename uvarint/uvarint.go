// Package uvarint owns the reading and writing of what is made of uvarints (encoding/binary), strings and bytes that carry their length, as
// records on the disk are.
package uvarint

import "encoding/binary"

// Append adds a string or bytes with the length in front.
func Append[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Reader takes values off a buffer; after the first that is not there it returns zeros and says so in Bad. What it returns shares the
// buffer's memory.
type Reader struct {
	Rest []byte
	Bad  bool
}

// Uvarint takes a number.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.Rest)
	if n <= 0 {
		r.Bad, r.Rest = true, nil
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

// Count takes how many things follow, of a byte at least each.
func (r *Reader) Count() uint64 {
	n := r.Uvarint()
	if n > uint64(len(r.Rest)) {
		r.Bad, r.Rest = true, nil
		return 0
	}
	return n
}

// Take takes so many bytes; nil: they are not there.
func (r *Reader) Take(n uint64) []byte {
	if n > uint64(len(r.Rest)) {
		r.Bad, r.Rest = true, nil
		return nil
	}
	b := r.Rest[:n:n]
	r.Rest = r.Rest[n:]
	return b
}

// Byte takes a byte.
func (r *Reader) Byte() byte {
	if b := r.Take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// Bytes takes bytes with the length in front. They are never nil.
func (r *Reader) Bytes() []byte {
	if b := r.Take(r.Uvarint()); b != nil {
		return b
	}
	return []byte{}
}

// String takes a string with the length in front.
func (r *Reader) String() string { return string(r.Bytes()) }
