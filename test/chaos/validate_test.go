package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// world makes a record as real watchers would: three streams over the same history of one object.
type world struct {
	r record
	h history
	v *validator
}

func newWorld() *world {
	w := &world{v: newValidator(snapshot{revision: 10, items: map[string]version{}})}
	w.h.name = "e"
	changes := []change{
		{"ADDED", "e-k", 11, "v-1"},
		{"MODIFIED", "e-k", 12, "v-2"},
		{"MODIFIED", "e-k", 13, "v-4"},
		{"DELETED", "e-k", 14, "v-4"},
		{"ADDED", "e-k", 16, "v-6"},
	}
	for i, name := range []string{"one", "two"} {
		w.r.streams = append(w.r.streams, &stream{watcher: name, server: i, from: 10, to: 16, events: append([]change{}, changes...)})
	}
	w.r.streams = append(w.r.streams, &stream{watcher: "phase", filter: phaseA, from: 10, to: 16, events: []change{
		{"ADDED", "e-k", 12, "v-2"}, {"MODIFIED", "e-k", 13, "v-4"}, {"DELETED", "e-k", 14, "v-4"}, {"ADDED", "e-k", 16, "v-6"},
	}})
	w.r.snapshots = []snapshot{{who: "list", revision: 13, items: map[string]version{"e-k": {13, "v-4"}}}}
	for i, c := range changes {
		o := Op{Key: "e-k", Kind: Put, Value: c.value, Revision: c.revision, Result: Done, Call: time.Duration(2 * i), Return: time.Duration(2*i + 1)}
		if c.kind == "DELETED" {
			o.Kind, o.Value, o.Revision = Delete, "", 0
		}
		w.h.ops = append(w.h.ops, o)
	}
	return w
}

// TestValidator shows that each way to break a watch is noticed.
func TestValidator(t *testing.T) {
	drop := func(s *stream, i int) { s.events = append(s.events[:i:i], s.events[i+1:]...) }
	tests := []struct {
		name   string
		breaks func(w *world)
		want   string // part of a problem; none for a legal record
	}{
		{"exact", func(*world) {}, ""},
		{"shorter", func(w *world) { w.r.streams[1].to = 12; w.r.streams[1].events = w.r.streams[1].events[:2] }, ""},
		{"resumed", func(w *world) { w.r.streams[1].from = 12; w.r.streams[1].events = w.r.streams[1].events[2:] }, ""},
		{"an outcome that is not known", func(w *world) { w.h.ops[1].Result = Unknown; w.h.ops[1].Revision = 0 }, ""},
		{"all listed again", func(w *world) {
			for _, s := range w.r.streams[:2] {
				s.from, s.events = 13, s.events[3:]
			}
			w.r.streams = w.r.streams[:2]
		}, ""},

		{"one missed an event", func(w *world) { drop(w.r.streams[0], 1) }, "watcher one at server-1, from 10 to 16: heard MODIFIED e-k @13"},
		{"one missed the last event", func(w *world) { drop(w.r.streams[0], 4) }, "missed ADDED e-k @16=v-6"},
		{
			"all missed an event", func(w *world) { drop(w.r.streams[0], 1); drop(w.r.streams[1], 1); drop(w.r.streams[2], 0) },
			"have not told of an acknowledged write",
		},
		{
			"all missed a deletion", func(w *world) { drop(w.r.streams[0], 3); drop(w.r.streams[1], 3); drop(w.r.streams[2], 2) },
			"have not told of 1 acknowledged deletions",
		},
		{"different contents", func(w *world) { w.r.streams[0].events[1].value = "other" }, "heard MODIFIED e-k @12=v-2, others MODIFIED e-k @12=other"},
		{"a write under another key", func(w *world) {
			w.h.ops[4].Result, w.h.ops[4].Revision = Unknown, 0
			w.r.streams = w.r.streams[:2]
			for _, s := range w.r.streams {
				s.events[4].key = "e-other"
			}
		}, "nobody did that"},
		{"an event of nobody", func(w *world) { w.h.ops[1].Result = Conflict }, "nobody did that"},
		{"a write that happened twice", func(w *world) {
			for _, s := range w.r.streams {
				s.events, s.to = append(s.events, change{"MODIFIED", "e-k", 17, "v-6"}), 17
			}
		}, "nobody did that, or not so often"},
		{"added twice", func(w *world) {
			for _, s := range w.r.streams[:2] {
				s.events[1].kind = "ADDED"
			}
		}, "but it was there"},
		{"a selector that lets too much through", func(w *world) {
			w.r.streams[2].events = append([]change{{"ADDED", "e-k", 11, "v-1"}}, w.r.streams[2].events...)
		}, "of phase=a"},
		{"a selector that hides what leaves it", func(w *world) { drop(w.r.streams[2], 2) }, "of phase=a"},
		{"a list that is old", func(w *world) { w.r.snapshots[0].items["e-k"] = version{12, "v-2"} }, "the watches say @13"},
		{"a list that lacks an object", func(w *world) { clear(w.r.snapshots[0].items) }, "lacks e-k"},
		{"revisions against time", func(w *world) { w.h.ops[0].Call, w.h.ops[0].Return = 100, 101 }, "out of the order of time"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld()
			test.breaks(w)
			problems := w.v.check(&w.r, w.r.streams[0].to, &w.h)
			if len(problems) > 0 && test.want == "" {
				t.Fatal(problems)
			}
			if got := strings.Join(problems, "\n"); !strings.Contains(got, test.want) {
				t.Errorf("noticed %q, want %q", got, test.want)
			}
		})
	}
}

// TestHear shows that the order within a stream is watched, too.
func TestHear(t *testing.T) {
	var r record
	s := &stream{from: 5, to: 5}
	tell := func(kind string, revision uint64) {
		o := thing{}
		o.Metadata.ResourceVersion = fmt.Sprint(revision)
		r.hear(s, kind, &o)
	}
	tell("ADDED", 6)
	tell("BOOKMARK", 6)
	tell("BOOKMARK", 9)
	if len(r.faults) != 0 {
		t.Fatal(r.faults)
	}
	tell("MODIFIED", 9) // after the bookmark that promised everything up to it
	tell("BOOKMARK", 8)
	tell("MODIFIED", 10)
	tell("MODIFIED", 10)
	if len(r.faults) != 3 {
		t.Errorf("noticed %q", r.faults)
	}
}
