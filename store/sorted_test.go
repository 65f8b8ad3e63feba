package store

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestSorted compares it with a map, over enough keys for several runs.
func TestSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sorted
		want := map[Key]uint64{}
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			first, count := rapid.IntRange(0, 2000).Draw(t, "first"), rapid.IntRange(1, 3*maxRun).Draw(t, "count")
			put := rapid.IntRange(0, 2).Draw(t, "put") > 0
			down := rapid.Bool().Draw(t, "down")
			for i := range count {
				if down {
					i = count - i
				}
				key := Key{"r", fmt.Sprint((first + i) % 3), fmt.Sprintf("%05d", first+i)}
				if put {
					s.put(&entry{item: Item{Key: key, Revision: uint64(step)}})
					want[key] = uint64(step)
				} else {
					s.delete(key)
					delete(want, key)
				}
			}
			if s.count != len(want) {
				t.Fatalf("%d entries, want %d", s.count, len(want))
			}
			keys := slices.SortedFunc(maps.Keys(want), compareKeys)
			start := Key{"r", "1", fmt.Sprintf("%05d", first)}
			at, _ := slices.BinarySearchFunc(keys, start, compareKeys)
			var got []Key
			s.from(start, func(item Item) bool {
				if item.Revision != want[item.Key] {
					t.Fatalf("%s has revision %d, want %d", item.Key, item.Revision, want[item.Key])
				}
				got = append(got, item.Key)
				return true
			})
			if !slices.Equal(got, keys[at:]) {
				t.Fatal(cmp.Diff(keys[at:], got))
			}
			for _, key := range []Key{start, {"r", "0", "00000"}, {"r", "2", "00002"}, {"r", "9", "x"}} {
				_, there := want[key]
				if (s.get(key) != nil) != there {
					t.Fatalf("%s is there: %t, want %t", key, !there, there)
				}
			}
			for _, run := range s.runs {
				if len(run) == 0 || len(run) > maxRun {
					t.Fatalf("a run of %d entries", len(run))
				}
			}
		}
	})
}
