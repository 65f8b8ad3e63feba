package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// span is the revisions in (from, to].
type span struct{ from, to uint64 }

// validator compares what the watchers have heard with each other, with lists and with what was written. It goes on from round to
// round: what one has shown is the ground of the next.
type validator struct {
	done     uint64              // everything up to here has been checked
	objects  map[string]version  // as of done
	changes  map[uint64]change   // the union of all watchers that select everything, from the beginning
	selected map[filter][]change // what each filter has to show of it, in order
	pending  []snapshot          // lists of revisions after done
	holes    []span              // what no watcher has heard, because all had to list again
	problems []string

	events, marks, streams, lists int
}

func newValidator(base snapshot) *validator {
	return &validator{
		done: base.revision, objects: maps.Clone(base.items), changes: map[uint64]change{}, selected: map[filter][]change{},
	}
}

func (v *validator) problem(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

// check takes the record up to a revision that every watcher has reached, and returns what is wrong.
func (v *validator) check(r *record, until uint64, h *history) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	v.problems = slices.Clone(r.faults)
	v.pending = append(v.pending, r.snapshots...)
	v.pending = append(v.pending, h.snapshots...)
	r.faults, r.snapshots, h.snapshots = nil, nil, nil
	from := v.done
	v.unite(r.streams, until)
	fresh := v.hole(r.streams, until)
	v.fold(until, fresh)
	for _, s := range r.streams {
		v.compare(s, until)
	}
	v.writers(h.ops, span{from, until}, h.name)
	r.trim(until)
	v.done = until
	return v.problems
}

// trim drops what has been checked. A stream that has not come so far has ended, or is a replay of the past.
func (r *record) trim(until uint64) {
	r.streams = slices.DeleteFunc(r.streams, func(s *stream) bool { return s.to < until })
	for _, s := range r.streams {
		s.from = max(s.from, until)
		s.events = slices.DeleteFunc(s.events, func(c change) bool { return c.revision <= until })
		s.marks = 0
	}
}

// unite adds what the watchers of everything have heard to the union: no two may have heard different things.
func (v *validator) unite(streams []*stream, until uint64) {
	for _, s := range streams {
		if s.filter != all {
			continue
		}
		for _, c := range s.events {
			if c.revision > until {
				break
			}
			known, heard := v.changes[c.revision]
			switch {
			case !heard:
				v.changes[c.revision] = c
			case known != c:
				v.problem("watcher %s at server-%d heard %s, others %s", s.watcher, s.server+1, c, known)
			}
		}
	}
}

func (c change) String() string {
	return fmt.Sprintf("%s %s @%d=%s", c.kind, c.key, c.revision, c.value)
}

// hole finds the revisions that no watcher of everything covers, and notes them.
func (v *validator) hole(streams []*stream, until uint64) []span {
	var covered []span
	for _, s := range streams {
		if s.filter == all && s.to > s.from {
			covered = append(covered, span{s.from, min(s.to, until)})
		}
	}
	slices.SortFunc(covered, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var fresh []span
	at := v.done
	for _, c := range covered {
		if c.from > at {
			fresh = append(fresh, span{at, c.from})
		}
		at = max(at, c.to)
	}
	if at < until {
		fresh = append(fresh, span{at, until})
	}
	v.holes = append(v.holes, fresh...)
	return fresh
}

func (v *validator) inHole(revision uint64) bool {
	return slices.ContainsFunc(v.holes, func(h span) bool { return revision > h.from && revision <= h.to })
}

// fold replays the changes over the objects and compares with every list on the way; it finds what each filter has to show.
func (v *validator) fold(until uint64, fresh []span) {
	revisions := slices.Sorted(maps.Keys(v.changes))
	first, _ := slices.BinarySearch(revisions, v.done+1)
	slices.SortStableFunc(v.pending, func(a, b snapshot) int { return cmp.Compare(a.revision, b.revision) })
	for _, revision := range revisions[first:] {
		fresh = v.pass(revision, fresh)
		v.compareLists(revision - 1)
		v.apply(v.changes[revision])
	}
	v.pass(until+1, fresh)
	v.compareLists(until)
}

// pass goes over the holes before a revision: a list behind one says how things stand. It returns the holes that are left.
func (v *validator) pass(revision uint64, holes []span) []span {
	for len(holes) > 0 && holes[0].from < revision {
		h := holes[0]
		v.compareLists(h.from)
		for _, s := range v.pending {
			if s.revision >= h.to && s.revision < revision {
				v.objects = maps.Clone(s.items)
				break
			}
		}
		holes = holes[1:]
	}
	return holes
}

func (v *validator) apply(c change) {
	was, there := v.objects[c.key]
	v.events++
	switch {
	case c.kind == "ADDED" && there:
		v.problem("%s, but it was there @%d", c, was.revision)
	case c.kind != "ADDED" && !there:
		v.problem("%s, but it was not there", c)
	case c.kind == "DELETED" && was.value != c.value:
		v.problem("%s, but the last value was %s", c, was.value)
	}
	for _, f := range []filter{all, phaseA, pulseIs} {
		before := there && f.matches(c.key, was.value)
		after := c.kind != "DELETED" && f.matches(c.key, c.value)
		shown := c
		switch {
		case before && after:
			shown.kind = "MODIFIED"
		case after:
			shown.kind = "ADDED"
		case before:
			shown.kind, shown.value = "DELETED", was.value
		default:
			continue
		}
		v.selected[f] = append(v.selected[f], shown)
	}
	if c.kind == "DELETED" {
		delete(v.objects, c.key)
	} else {
		v.objects[c.key] = version{c.revision, c.value}
	}
}

// compareLists compares the lists up to a revision, after which no change was folded yet.
func (v *validator) compareLists(until uint64) {
	n := 0
	for ; n < len(v.pending) && v.pending[n].revision <= until; n++ {
		s := v.pending[n]
		if v.inHole(s.revision) || s.revision < v.done {
			continue // of the past: the objects are not known any more
		}
		v.lists++
		for key, have := range s.items {
			if want := v.objects[key]; have != want {
				v.problem("%s: revision %d has %s @%d=%s, the watches say @%d=%s", s.who, s.revision, key,
					have.revision, have.value, want.revision, want.value)
			}
		}
		for key, want := range v.objects {
			if _, there := s.items[key]; !there {
				v.problem("%s: revision %d lacks %s @%d=%s", s.who, s.revision, key, want.revision, want.value)
			}
		}
	}
	v.pending = slices.Delete(v.pending, 0, n)
}

// compare checks one stream: it must have heard all that its filter selects while it lasted, and nothing else.
func (v *validator) compare(s *stream, until uint64) {
	v.streams++
	v.marks += s.marks
	end := min(s.to, until)
	if slices.ContainsFunc(v.holes, func(h span) bool { return s.from < h.to && end > h.from }) {
		return
	}
	want := v.selected[s.filter]
	first, _ := slices.BinarySearchFunc(want, s.from+1, func(c change, r uint64) int { return cmp.Compare(c.revision, r) })
	want = want[first:]
	last, _ := slices.BinarySearchFunc(want, end+1, func(c change, r uint64) int { return cmp.Compare(c.revision, r) })
	want = want[:last]
	got := s.events
	for len(got) > 0 && got[len(got)-1].revision > until {
		got = got[:len(got)-1]
	}
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			v.problem("%s missed %s and %d more", s, want[i], len(want)-i-1)
		case i >= len(want):
			v.problem("%s heard %s, which is not to be heard", s, got[i])
		case want[i] == got[i]:
			continue
		default:
			v.problem("%s heard %s where %s comes", s, got[i], want[i])
		}
		return
	}
}

func (s *stream) String() string {
	selects := ""
	if s.filter != all {
		selects = " of " + string(s.filter)
	}
	return fmt.Sprintf("watcher %s%s at server-%d, from %d to %d:", s.watcher, selects, s.server+1, s.from, s.to)
}

// writers compares the changes with what the clients of an episode have written, whose keys begin with its name.
func (v *validator) writers(ops []Op, round span, name string) {
	puts, deleted := map[written]int{}, map[string]int{} // how often at most
	acknowledged := map[string]int{}
	for _, o := range ops {
		happened := o.Result == Done || o.Result == Unknown
		switch {
		case !o.write() || !happened:
		case o.Kind == Delete || o.Kind == DeleteAt:
			deleted[o.Key]++
			if o.Result == Done {
				acknowledged[o.Key]++
			}
		default:
			puts[written{o.Key, o.Value}]++
			if c, heard := v.changes[o.Revision]; o.Result == Done && (!heard && !v.inHole(o.Revision) || heard && (c.key != o.Key || c.value != o.Value)) {
				v.problem("the watches have not told of an acknowledged write, but of %q: %s", c, o)
			}
		}
	}
	for revision, c := range v.changes {
		if revision <= round.from || revision > round.to || !strings.HasPrefix(c.key, name+"-") {
			continue
		}
		if c.kind == "DELETED" {
			deleted[c.key]--
			acknowledged[c.key]--
			if deleted[c.key] < 0 {
				v.problem("%s, but nobody did that, or not so often", c)
			}
			continue
		}
		if w := (written{c.key, c.value}); puts[w] > 0 {
			puts[w]--
		} else {
			v.problem("%s, but nobody did that, or not so often", c)
		}
	}
	for key, left := range acknowledged {
		if left > 0 && !slices.ContainsFunc(v.holes, func(h span) bool { return h.to > round.from }) {
			v.problem("the watches have not told of %d acknowledged deletions of %s", left, key)
		}
	}
	v.realTime(ops)
}

// realTime checks that the revisions of acknowledged writes have the order of time, over all keys.
func (v *validator) realTime(ops []Op) {
	times := map[string]int{}
	for _, o := range ops {
		times[o.Value]++
	}
	var writes []Op
	for _, o := range ops {
		if o.write() && o.Result == Done && o.Revision != 0 && times[o.Value] == 1 {
			writes = append(writes, o)
		}
	}
	ends := slices.Clone(writes)
	slices.SortFunc(writes, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(ends, func(a, b Op) int { return cmp.Compare(a.Return, b.Return) })
	var newest Op
	i := 0
	for _, o := range writes {
		for ; i < len(ends) && ends[i].Return < o.Call; i++ {
			if ends[i].Revision > newest.Revision {
				newest = ends[i]
			}
		}
		if newest.Revision >= o.Revision {
			v.problem("revisions out of the order of time: %s, before %s", newest, o)
		}
	}
}
