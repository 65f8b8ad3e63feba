package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func fill(b byte, sectors int) []byte { return bytes.Repeat([]byte{b}, sectors*Sector) }

func read(t interface{ Fatal(...any) }, p *Port, off int64, sectors int) []byte {
	b := make([]byte, sectors*Sector)
	if err := p.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCut checks against a model: after a cut every sector has what it had at the last flush, or something written to it since.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const sectors = 32
		d := New(make([]byte, sectors*Sector))
		p := d.PowerOn()
		var allowed [sectors][]byte // what each sector may have; the newest is last
		for i := range allowed {
			allowed[i] = []byte{0}
		}
		ops := rapid.IntRange(1, 40).Draw(t, "ops")
		cutAt := rapid.IntRange(1, ops).Draw(t, "cut at")
		dark := false
		d.PlanCut(cutAt, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), func() { dark = true })
		for op := 1; op <= ops; op++ {
			var err error
			if rapid.IntRange(0, 4).Draw(t, "what") == 0 {
				if err = p.Flush(); err == nil {
					for i := range allowed {
						allowed[i] = allowed[i][len(allowed[i])-1:]
					}
				}
			} else {
				first := rapid.IntRange(0, sectors-1).Draw(t, "first")
				n := rapid.IntRange(1, sectors-first).Draw(t, "n")
				err = p.WriteAt(fill(byte(op), n), int64(first)*Sector)
				for i := first; i < first+n && op <= cutAt; i++ {
					allowed[i] = append(allowed[i], byte(op))
				}
			}
			if failed := errors.Is(err, syscall.EIO); failed != (op >= cutAt) || dark != failed {
				t.Fatalf("operation %d of %d, cut at %d: %v", op, ops, cutAt, err)
			}
		}
		if err := p.ReadAt(make([]byte, Sector), 0); !errors.Is(err, syscall.EIO) {
			t.Fatalf("read without power: %v", err)
		}
		old, p := p, d.PowerOn()
		if err := old.WriteAt(fill(99, 1), 0); !errors.Is(err, syscall.EIO) {
			t.Fatalf("a write from before the cut: %v", err)
		}
		for i := range allowed {
			got := read(t, p, int64(i)*Sector, 1)
			if !bytes.Contains(allowed[i], got[:1]) || !bytes.Equal(got, fill(got[0], 1)) {
				t.Fatalf("sector %d has %v, allowed is one of %v", i, got[:1], allowed[i])
			}
		}
	})
}

// TestCutsDiffer makes sure that cuts lose something, keep something and tear something.
func TestCutsDiffer(t *testing.T) {
	var sum Loss
	for seed := range uint64(100) {
		d := New(make([]byte, 16*Block))
		p := d.PowerOn()
		d.PlanCut(100, rand.New(rand.NewPCG(seed, 0)), nil)
		for i := range int64(16) {
			if err := p.WriteAt(fill(byte(i+1), Block/Sector), i*Block); err != nil {
				t.Fatal(err)
			}
		}
		d.Cut()
		l := d.Lost()
		if l.Kept+l.Dropped+l.Torn != 16 {
			t.Errorf("seed %d: %v of 16 blocks", seed, l)
		}
		sum.Kept, sum.Dropped, sum.Torn = sum.Kept+l.Kept, sum.Dropped+l.Dropped, sum.Torn+l.Torn
	}
	if sum.Kept < 300 || sum.Dropped < 300 || sum.Torn < 50 {
		t.Errorf("of 1600 blocks: %v", sum)
	}
}

func TestFaults(t *testing.T) {
	d := New(fill(1, 8))
	p := d.PowerOn()
	d.Break(WritesFail)
	if err := errors.Join(p.WriteAt(fill(2, 1), 0)); !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %v", err)
	}
	if err := p.Flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	if got := read(t, p, 0, 1); got[0] != 1 {
		t.Errorf("read %d", got[0])
	}
	d.Break(NothingGoes)
	if err := p.ReadAt(make([]byte, Sector), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v", err)
	}
	d.Break(Healthy)
	if err := errors.Join(p.WriteAt(fill(3, 1), Sector), p.Flush()); err != nil {
		t.Error(err)
	}
	if err := p.WriteAt(fill(3, 1), 8*Sector); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("write beyond the end: %v", err)
	}
	d.Off()
	if err := p.Flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush without power: %v", err)
	}
}

// TestCutAtAPlace: the power fails in the nth write of a part of the disk, or so many operations later, and not in others.
func TestCutAtAPlace(t *testing.T) {
	for later := range 3 {
		d := New(make([]byte, 16*Sector))
		p := d.PowerOn()
		gone := false
		d.PlanCutAt(4*Sector, 5*Sector, 2, later, rand.New(rand.NewPCG(1, 0)), func() { gone = true })
		for i, at := range []int64{0, 4, 3, 8, 4, 5, 6} { // the second write of sector 4 is the fifth
			err := p.WriteAt(fill(1, 1), at*Sector)
			if want := i >= 4+later; gone != want || (err != nil) != want {
				t.Errorf("%d later: after write %d gone: %t, %v", later, i, gone, err)
			}
		}
	}
}
