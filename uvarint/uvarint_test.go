package uvarint_test

import (
	"bytes"
	"testing"

	"github.com/shoal-edge/shoal/uvarint"
)

func TestReader(t *testing.T) {
	data := uvarint.Append(uvarint.Append([]byte{0x80, 1, 7, 2}, "name"), []byte{})
	r := uvarint.Reader{Rest: data}
	if n, b, count := r.Uvarint(), r.Byte(), r.Count(); n != 128 || b != 7 || count != 2 {
		t.Errorf("%d, %d, %d", n, b, count)
	}
	if s, empty := r.String(), r.Bytes(); s != "name" || empty == nil || len(empty) != 0 || r.Bad || len(r.Rest) != 0 {
		t.Errorf("%q, %q, %+v", s, empty, r)
	}
	for cut := range len(data) {
		r := uvarint.Reader{Rest: data[:cut]}
		r.Uvarint()
		r.Byte()
		r.Uvarint()
		_, _ = r.Bytes(), r.Bytes()
		if !r.Bad || r.Byte() != 0 || r.String() != "" || !r.Bad {
			t.Errorf("%d bytes of %d are enough: %+v", cut, len(data), r)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add(bytes.Repeat([]byte{0xff}, 12))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := uvarint.Reader{Rest: data}
		for !r.Bad && len(r.Rest) > 0 {
			before := len(r.Rest)
			if b := r.Bytes(); len(b) > before {
				t.Fatalf("%d bytes of %d", len(b), before)
			}
		}
	})
}
