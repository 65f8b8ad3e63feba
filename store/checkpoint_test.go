package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReplaceIsWrittenDown replaces everything, fails to write that down, changes more, and expects a checkpoint of the whole.
func TestReplaceIsWrittenDown(t *testing.T) {
	s := New(Config{Persisted: true})
	apply := func(revision uint64, name string) Item {
		item := Item{Key: Key{"as", "x", name}, Revision: revision, Value: []byte(fmt.Sprint(name, revision))}
		if err := s.Apply(revision, Txn{Ops: []Op{{Key: item.Key, Value: item.Value, Expect: Any}}}); err != nil {
			t.Fatal(err)
		}
		return item
	}
	apply(1, "gone")
	s.Changes()
	apply(2, "gone too")
	kept := Item{Key: Key{"bs", "", "kept"}, Revision: 9, Value: []byte("v")}
	s.Replace(9, []Item{kept})
	s.Changes().Undo()
	added := apply(10, "added")
	changes := s.Changes()
	if diff := cmp.Diff([]Item{added, kept}, changes.Put); diff != "" || !changes.Whole || changes.Revision != 10 || len(changes.Deleted) != 0 {
		t.Errorf("%+v\n%s", changes, diff)
	}
	more := apply(11, "more")
	changes = s.Changes()
	if diff := cmp.Diff([]Item{more}, changes.Put); diff != "" || changes.Whole {
		t.Errorf("the next changes: %+v\n%s", changes, diff)
	}
}
