package raft

import (
	"bytes"
	"errors"
	"testing"

	hraft "github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// TestRecentLog compares the log with the cache in front of it, whatever is appended and removed.
func TestRecentLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		below, err := openLog(t.TempDir(), true)
		if err != nil {
			rt.Fatal(err)
		}
		defer below.close()
		below.flush = func(*segment) error { return nil } // nobody cuts the power
		r := newRecentLog(below)
		next, term := uint64(1), uint64(1)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			first, last := must(rt, r.FirstIndex), must(rt, r.LastIndex)
			switch step := rapid.SampledFrom([]string{"append", "append", "append", "compact", "cut"}).Draw(rt, "step"); {
			case step == "append":
				var entries []*hraft.Log
				count := rapid.SampledFrom([]int{1, 3, recentEntries / 2}).Draw(rt, "entries")
				size := rapid.SampledFrom([]int{0, 10, recentBytes / 2 / count}).Draw(rt, "size")
				for range count {
					entries = append(entries, &hraft.Log{Index: next, Term: term, Data: make([]byte, size)})
					next++
				}
				if err := r.StoreLogs(entries); err != nil {
					rt.Fatal(err)
				}
			case last == 0:
			case step == "compact":
				if err := r.DeleteRange(first, rapid.Uint64Range(first, last).Draw(rt, "until")); err != nil {
					rt.Fatal(err)
				}
			case step == "cut": // as a follower does whose leader has other entries; they come in a later term
				from := rapid.Uint64Range(first, last).Draw(rt, "from")
				if err := r.DeleteRange(from, last); err != nil {
					rt.Fatal(err)
				}
				next, term = from, term+1
			}
			if r.bytes > recentBytes {
				rt.Fatalf("%d bytes are kept", r.bytes)
			}
			for _, index := range []uint64{first, r.first - 1, r.first, (r.first + r.next) / 2, r.next - 1, next - 1, next} {
				var have, want hraft.Log
				wantErr := below.GetLog(index, &want)
				if err := r.GetLog(index, &have); !errors.Is(err, wantErr) {
					rt.Fatalf("entry %d: %v, want %v", index, err, wantErr)
				}
				if wantErr == nil && (have.Index != want.Index || have.Term != want.Term || !bytes.Equal(have.Data, want.Data)) {
					rt.Fatalf("entry %d of term %d with %d bytes, want term %d and %d bytes", have.Index, have.Term, len(have.Data), want.Term, len(want.Data))
				}
			}
		}
	})
}

func must(t *rapid.T, f func() (uint64, error)) uint64 {
	v, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return v
}
