package store

import (
	"slices"
)

// maxRun bounds how many entries an insertion moves.
const maxRun = 512

// sorted holds entries in the order of their keys. They lie in runs of a bounded length: ordered lists come for free, an entry costs
// a pointer, and an insertion in the middle of many objects moves only its neighbours.
type sorted struct {
	runs  [][]*entry // none is empty
	count int
}

// run finds the run that has a key or would get it. There must be one.
func (s *sorted) run(key Key) int {
	at, _ := slices.BinarySearchFunc(s.runs, key, func(run []*entry, k Key) int { return compareKeys(run[len(run)-1].item.Key, k) })
	return min(at, len(s.runs)-1)
}

func (s *sorted) get(key Key) *entry {
	if s.count == 0 {
		return nil
	}
	run := s.runs[s.run(key)]
	if at, found := find(run, key); found {
		return run[at]
	}
	return nil
}

// put inserts an entry, or replaces the one of the same key.
func (s *sorted) put(e *entry) {
	if s.count == 0 {
		s.runs, s.count = [][]*entry{{e}}, 1
		return
	}
	i := s.run(e.item.Key)
	before := len(s.runs[i])
	run := insert(s.runs[i], e)
	s.runs[i] = run
	s.count += len(run) - before
	if len(run) <= maxRun {
		return
	}
	cut := len(run) / 2
	if i == len(s.runs)-1 && run[len(run)-1] == e {
		cut = len(run) - 1 // names that count up fill one run after the other
	}
	s.runs[i] = slices.Clone(run[:cut])
	s.runs = slices.Insert(s.runs, i+1, slices.Clone(run[cut:]))
}

func (s *sorted) delete(key Key) {
	if s.count == 0 {
		return
	}
	i := s.run(key)
	before := len(s.runs[i])
	s.runs[i] = remove(s.runs[i], key)
	s.count -= before - len(s.runs[i])
	switch {
	case len(s.runs[i]) == 0:
		s.runs = slices.Delete(s.runs, i, i+1)
	case i+1 < len(s.runs) && len(s.runs[i])+len(s.runs[i+1]) < maxRun/2:
		s.runs[i] = append(s.runs[i], s.runs[i+1]...)
		s.runs = slices.Delete(s.runs, i+1, i+2)
	}
}

// from calls f for every item from a key on, in order, until f returns false.
func (s *sorted) from(key Key, f func(Item) bool) {
	if s.count == 0 {
		return
	}
	i := s.run(key)
	at, _ := find(s.runs[i], key)
	for ; i < len(s.runs); i, at = i+1, 0 {
		for _, e := range s.runs[i][at:] {
			if !f(e.item) {
				return
			}
		}
	}
}
