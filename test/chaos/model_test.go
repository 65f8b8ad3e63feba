package chaos

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"
)

// at places operations one after another, each as long as a tick, unless it has times already.
func at(ops ...Op) []Op {
	const tick = time.Millisecond
	for i := range ops {
		ops[i].Key = "k"
		if ops[i].Return == 0 {
			ops[i].Call, ops[i].Return = time.Duration(2*i)*tick, time.Duration(2*i+1)*tick
		}
	}
	return ops
}

// TestModel shows that the checker accepts what may happen and catches each way to break the promise.
func TestModel(t *testing.T) {
	made := Op{Kind: Create, Value: "a", Result: Done, Revision: 10}
	put := Op{Kind: Put, Value: "b", Result: Done, Revision: 20}
	lost := Op{Kind: Put, Value: "b", Result: Unknown}
	read := func(revision uint64, value string) Op {
		return Op{Kind: Get, Result: Done, Revision: revision, Got: value}
	}
	missing := Op{Kind: Get, Result: Missing}
	during := func(o Op, from, to time.Duration) Op {
		o.Call, o.Return = from*time.Millisecond, to*time.Millisecond
		return o
	}
	tests := []struct {
		name  string
		legal bool
		ops   []Op
	}{
		{"write and read", true, at(missing, made, read(10, "a"), put, read(20, "b"))},
		{"reads on both sides of a write that lasts", true, at(made, during(put, 1, 9), read(10, "a"), read(20, "b"))},
		{"a write of unknown outcome that happened", true, at(made, lost, read(10, "a"), read(20, "b"), read(20, "b"))},
		{"a write of unknown outcome that did not", true, at(made, lost, read(10, "a"), read(10, "a"))},
		{"compare and swap", true, at(made, Op{Kind: Update, Expect: 10, Value: "b", Result: Done, Revision: 20},
			Op{Kind: Update, Expect: 10, Value: "c", Result: Conflict}, read(20, "b"))},
		{"an update that changes nothing", true, at(made, Op{Kind: Put, Value: "a", Result: Done, Revision: 10}, read(10, "a"))},
		{"delete and create", true, at(made, Op{Kind: Delete, Result: Done}, missing, Op{Kind: Create, Value: "b", Result: Done, Revision: 30})},
		{"compare and delete of unknown outcome, after one", true, at(made, lost,
			Op{Kind: DeleteAt, Expect: 20, Result: Unknown}, missing)},

		{"a stale read", false, at(made, put, read(10, "a"))},
		{"a lost write", false, at(made, read(10, "a"), missing)},
		{"a read that goes back", false, at(made, during(put, 1, 20), during(read(20, "b"), 3, 4), during(read(10, "a"), 5, 6))},
		{"a value under another revision", false, at(made, read(11, "a"))},
		{"two winners of one compare and swap", false, at(made, Op{Kind: Update, Expect: 10, Value: "b", Result: Done, Revision: 20},
			Op{Kind: Update, Expect: 10, Value: "c", Result: Done, Revision: 30})},
		{"a refused write that happened", false, at(made, Op{Kind: Update, Expect: 10, Value: "b", Result: Conflict}, read(20, "b"))},
		{"a conflict that is none", false, at(made, Op{Kind: Update, Expect: 10, Value: "b", Result: Conflict})},
		{"a revision that goes back", false, at(made, Op{Kind: Put, Value: "b", Result: Done, Revision: 9})},
		{"found after its deletion", false, at(made, Op{Kind: Delete, Result: Done}, read(10, "a"))},
		{"created twice", false, at(made, Op{Kind: Create, Value: "b", Result: Done, Revision: 20})},
		{"exists, but does not", false, at(Op{Kind: Create, Value: "a", Result: Exists})},
		{"missing, but there", false, at(made, Op{Kind: Put, Value: "b", Result: Missing})},
		{"a write of unknown outcome that happened, and then had not", false, at(made, lost, read(20, "b"), read(10, "a"))},
		{"an update that changes nothing of an older state", false, at(made, put, Op{Kind: Put, Value: "a", Result: Done, Revision: 10})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := porcupine.Illegal
			if test.legal {
				want = porcupine.Ok
			}
			if got, _ := checkLinearizable(test.ops, time.Minute); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// TestResolve checks that the watches settle what no client knows, and nothing else.
func TestResolve(t *testing.T) {
	made := Op{Kind: Create, Value: "a", Result: Done, Revision: 10}
	lost := Op{Kind: Put, Value: "b", Result: Unknown}
	gone := Op{Kind: Delete, Result: Unknown}
	told := map[uint64]change{10: {"ADDED", "k", 10, "a"}, 20: {"MODIFIED", "k", 20, "b"}}
	none := map[uint64]change{10: told[10]}
	read := func(revision uint64, value string) Op {
		return Op{Kind: Get, Result: Done, Revision: revision, Got: value}
	}
	tests := []struct {
		name    string
		ops     []Op
		changes map[uint64]change
		holes   bool
		left    int
		want    porcupine.CheckResult
	}{
		{"it happened", at(made, lost, read(10, "a"), read(20, "b")), told, false, 4, porcupine.Ok},
		{"it happened, and was not read", at(made, lost, read(10, "a")), told, false, 3, porcupine.Ok},
		{"it happened later than this", at(made, read(20, "b"), lost), told, false, 3, porcupine.Illegal},
		{"it did not happen", at(made, lost, read(10, "a")), none, false, 2, porcupine.Ok},
		{"it is read, but not told", at(made, lost, read(20, "b")), none, false, 3, porcupine.Ok},
		{"nobody knows", at(made, lost, read(10, "a")), none, true, 3, porcupine.Ok},
		{"no deletion", at(made, gone, read(10, "a")), none, false, 2, porcupine.Ok},
		{"no deletion, but missing", at(made, gone, Op{Kind: Get, Result: Missing}), none, false, 2, porcupine.Illegal},
		{"a deletion", at(made, gone, Op{Kind: Get, Result: Missing}), map[uint64]change{10: told[10], 20: {"DELETED", "k", 20, "a"}}, false, 3, porcupine.Ok},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ops := resolve(test.ops, test.changes, test.holes)
			if got, _ := checkLinearizable(ops, time.Minute); len(ops) != test.left || got != test.want {
				t.Errorf("%s, want %s: %v", got, test.want, ops)
			}
		})
	}
}

// TestResolveHidesNothing checks, for random histories of a register that may lie and watches that may too, that whatever is found
// linearizable after resolve was so before.
func TestResolveHidesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ops []Op
		changes := map[uint64]change{}
		for i := range rapid.IntRange(1, 9).Draw(t, "operations") {
			o := Op{
				Kind:   rapid.SampledFrom([]Kind{Get, Create, Put, Delete}).Draw(t, "kind"),
				Result: rapid.SampledFrom([]Result{Done, Unknown, Unknown, Missing}).Draw(t, "result"),
			}
			value := func() string { return rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "value") }
			switch {
			case o.Kind == Get && o.Result == Done:
				o.Got = value()
				o.Revision = uint64(o.Got[0])
			case o.Kind == Create || o.Kind == Put:
				o.Value = value()
				if o.Result == Done {
					o.Revision = uint64(o.Value[0])
				}
			}
			ops = append(ops, o)
			if rapid.Bool().Draw(t, "told") {
				revision := uint64(200 + i)
				c := change{"MODIFIED", "k", revision, o.Value}
				if o.Value == "" {
					c = change{"DELETED", "k", revision, ""}
				} else {
					c.revision = uint64(o.Value[0])
				}
				changes[c.revision] = c
			}
		}
		ops = at(ops...)
		resolved := resolve(ops, changes, rapid.Bool().Draw(t, "holes"))
		if after, _ := checkLinearizable(resolved, time.Minute); after == porcupine.Ok {
			if before, _ := checkLinearizable(ops, time.Minute); before != porcupine.Ok {
				t.Fatalf("%s before, %s after:\n%v\n%v", before, after, ops, resolved)
			}
		}
	})
}
