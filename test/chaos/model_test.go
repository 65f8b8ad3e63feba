package chaos

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
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
