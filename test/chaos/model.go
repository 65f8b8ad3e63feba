package chaos

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation asks for.
type Kind string

// The operations on one object.
const (
	Get      Kind = "get"      // a linearizable read
	Create   Kind = "create"   //
	Put      Kind = "put"      // an update without a resourceVersion
	Update   Kind = "update"   // an update of one resourceVersion
	Delete   Kind = "delete"   //
	DeleteAt Kind = "deleteAt" // a deletion of one resourceVersion
)

// Result is how an operation ended, as its client knows it.
type Result string

// The results. Refusals say something about the object, and that nothing was done; Unknown says nothing.
const (
	Done     Result = "done"
	Exists   Result = "exists"
	Missing  Result = "missing"
	Conflict Result = "conflict"
	Unknown  Result = "unknown"
)

// Op is one operation of a history. Times count from the start of the run.
type Op struct {
	Client, Server int
	Kind           Kind
	Key            string
	Expect         uint64 `json:",omitempty"` // the revision that Update and DeleteAt ask for
	Value          string `json:",omitempty"` // written
	Result         Result
	Revision       uint64 `json:",omitempty"` // of what was written or read
	Got            string `json:",omitempty"` // read
	Call, Return   time.Duration
	// Open says that the client has had no answer, so that the operation may have happened at any time since; Return means nothing.
	Open bool `json:",omitempty"`
}

func (o Op) write() bool { return o.Kind != Get }

func (o Op) String() string {
	asked := fmt.Sprintf("%s %s", o.Kind, o.Key)
	if o.Expect != 0 {
		asked += fmt.Sprintf("@%d", o.Expect)
	}
	if o.Value != "" {
		asked += "=" + o.Value
	}
	answer := string(o.Result)
	if o.Revision != 0 {
		answer += fmt.Sprintf(" @%d", o.Revision)
	}
	if o.Got != "" {
		answer += "=" + o.Got
	}
	if o.Open {
		answer += ", as the watches tell"
	}
	return fmt.Sprintf("%s -> %s (client %d, server-%d, %.3fs to %.3fs)", asked, answer, o.Client, o.Server+1,
		o.Call.Seconds(), o.Return.Seconds())
}

// object is the model's state of one object.
type object struct {
	there bool
	// revision is that of the last write; 0 says that the write's outcome was unknown and nobody has read it yet: then it
	// is above floor.
	revision, floor uint64
	value           string
}

// at reports whether the object can have a revision.
func (s object) at(revision uint64) bool {
	return s.there && (s.revision == revision || s.revision == 0 && revision > s.floor)
}

func (s object) newest() uint64 { return max(s.revision, s.floor) }

// model is an object with compare-and-swap by revision. Every key is checked alone: linearizability is local.
func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{object{}} },
		Step: func(state, input, _ any) []any {
			var out []any
			for _, next := range step(state.(object), input.(Op)) {
				out = append(out, next)
			}
			return out
		},
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			index := map[string]int{}
			var parts [][]porcupine.Operation
			for _, op := range history {
				key := op.Input.(Op).Key
				i, known := index[key]
				if !known {
					i = len(parts)
					index[key] = i
					parts = append(parts, nil)
				}
				parts[i] = append(parts[i], op)
			}
			return parts
		},
		DescribeOperation: func(input, _ any) string { return input.(Op).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
	return m.ToModel()
}

// step returns the states that an object can be in after an operation; none says that the operation cannot have ended so.
func step(s object, o Op) []object {
	switch o.Kind {
	case Get:
		return s.get(o)
	case Create:
		return s.create(o)
	case Put, Update:
		return s.update(o)
	default:
		return s.remove(o)
	}
}

func (s object) get(o Op) []object {
	switch {
	case o.Result == Missing && !s.there:
		return []object{s}
	case o.Result == Done && s.at(o.Revision) && s.value == o.Got:
		s.revision = o.Revision
		return []object{s}
	}
	return nil
}

func (s object) create(o Op) []object {
	made := object{there: true, revision: o.Revision, floor: s.newest(), value: o.Value}
	switch {
	case o.Result == Done && !s.there && o.Revision > s.newest(), o.Result == Unknown && !s.there:
		return []object{made}
	case o.Result == Exists && s.there, o.Result == Unknown:
		return []object{s}
	}
	return nil
}

// refused tells whether a write that changed nothing may have been refused so in this state.
func (s object) refused(o Op) bool {
	switch o.Result {
	case Missing:
		return !s.there
	case Conflict:
		// Without an expected revision: too many others wrote at the same time, which says nothing.
		return o.Expect == 0 || s.there && s.revision != o.Expect
	}
	return false
}

func (s object) update(o Op) []object {
	may := s.there && (o.Kind == Put || s.at(o.Expect))
	same := s.value == o.Value // then nothing need be written
	next := object{there: true, revision: o.Revision, floor: s.newest(), value: o.Value}
	if o.Kind == Update {
		next.floor = max(next.floor, o.Expect)
	}
	switch {
	case o.Result == Unknown && !may:
		return []object{s}
	case o.Result == Unknown && (same || o.Kind == Update && s.revision == 0):
		return []object{s, next}
	case o.Result == Unknown:
		return []object{next}
	case o.Result != Done && s.refused(o):
		return []object{s}
	case o.Result != Done || !may:
		return nil
	case same && s.at(o.Revision) && (o.Kind == Put || o.Revision == o.Expect):
		s.revision = o.Revision
		return []object{s}
	case o.Revision > next.floor:
		return []object{next}
	}
	return nil
}

func (s object) remove(o Op) []object {
	may := s.there && (o.Kind == Delete || s.at(o.Expect))
	gone := object{floor: max(s.newest(), o.Expect)}
	switch {
	case o.Result == Unknown && !may:
		return []object{s}
	case o.Result == Unknown && o.Kind == DeleteAt && s.revision == 0:
		return []object{s, gone}
	case o.Result == Unknown, o.Result == Done && may:
		return []object{gone}
	case o.Result != Done && s.refused(o):
		return []object{s}
	}
	return nil
}

// written is a value at its place.
type written struct{ key, value string }

// resolve uses what the watches have told to settle the outcomes that no client knows, each of which would double the work of the
// checker: a write that the watches tell of happened at that revision, and one of which neither they nor a read tell did not happen.
// Of revisions that no watch covers (holes) nothing is concluded.
//
// It hides nothing: an operation without an answer may have happened at one revision or another, or never, so each order that
// explains the settled history explains the whole one too. What is settled wrongly, because a watch lied, is one order less.
func resolve(ops []Op, changes map[uint64]change, holes bool) []Op {
	times, read := map[string]int{}, map[string]bool{}
	deletions := map[string]int{} // events that no acknowledged deletion explains
	for _, o := range ops {
		switch {
		case o.Kind == Get:
			read[o.Got] = true
		case o.Value != "":
			times[o.Value]++
		case o.Result == Done:
			deletions[o.Key]--
		}
	}
	told := map[written]uint64{}
	for revision, c := range changes {
		if c.kind == "DELETED" {
			deletions[c.key]++
		} else {
			told[written{c.key, c.value}] = revision
		}
	}
	var out []Op
	for _, o := range ops {
		revision, happened := told[written{o.Key, o.Value}]
		switch {
		case o.Result != Unknown:
		case !o.write():
			continue // it says nothing
		case o.Value == "":
			if deletions[o.Key] <= 0 && !holes {
				continue
			}
			o.Open = true
		case times[o.Value] > 1:
			o.Open = true
		case happened:
			o.Result, o.Revision, o.Open = Done, revision, true
		case !read[o.Value] && !holes:
			continue
		default:
			o.Open = true
		}
		out = append(out, o)
	}
	return out
}

// forever is after the end of every run.
const forever = 1000 * time.Hour

// checkLinearizable returns porcupine's verdict over a history that begins with no object. What the checker cannot decide in
// the time is Unknown, and no better than Illegal.
func checkLinearizable(history []Op, limit time.Duration) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	operations := make([]porcupine.Operation, 0, len(history))
	for _, o := range history {
		until := o.Return
		switch {
		case o.Result == Unknown && !o.write():
			continue // it says nothing
		case o.Result == Unknown, o.Open:
			until = forever
		}
		operations = append(operations, porcupine.Operation{
			ClientId: o.Client, Input: o, Output: o, Call: int64(o.Call), Return: int64(until),
		})
	}
	return porcupine.CheckOperationsVerbose(model(), operations, limit)
}
