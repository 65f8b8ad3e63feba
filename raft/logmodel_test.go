package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/shoal-edge/shoal/store"
)

// modelLog is what a log should have.
type modelLog struct {
	first uint64
	terms []uint64 // of the entries from first on
	sizes []int
	state map[string]string
}

func (m *modelLog) last() uint64 { return m.first + uint64(len(m.terms)) - 1 }

func (m *modelLog) clone() *modelLog {
	c := *m
	c.terms, c.sizes, c.state = slices.Clone(m.terms), slices.Clone(m.sizes), maps.Clone(m.state)
	return &c
}

func (m *modelLog) append(e *hraft.Log) {
	if len(m.terms) == 0 {
		m.first = e.Index
	}
	m.terms, m.sizes = append(m.terms, e.Term), append(m.sizes, len(e.Data))
}

func (m *modelLog) remove(first, last uint64) {
	if first <= m.first {
		n := last - m.first + 1
		m.terms, m.sizes, m.first = m.terms[n:], m.sizes[n:], last+1
	} else {
		n := first - m.first
		m.terms, m.sizes = m.terms[:n], m.sizes[:n]
	}
	if len(m.terms) == 0 {
		m.first = 0
	}
}

// differs says in what a log is not as the model is.
func (m *modelLog) differs(s *logStore) string {
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if len(m.terms) == 0 && (first != 0 || last != 0) || len(m.terms) > 0 && (first != m.first || last != m.last()) {
		return fmt.Sprintf("it has the entries %d to %d, not %d and %d more", first, last, m.first, len(m.terms))
	}
	for i, term := range m.terms {
		var got hraft.Log
		index := m.first + uint64(i)
		if err := s.GetLog(index, &got); err != nil {
			return fmt.Sprintf("entry %d: %v", index, err)
		}
		if want := entryFor(index, term, m.sizes[i]); got.Term != term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
			return fmt.Sprintf("entry %d is another one, of term %d", index, got.Term)
		}
	}
	if err := s.GetLog(last+1, &hraft.Log{}); !errors.Is(err, hraft.ErrLogNotFound) {
		return fmt.Sprintf("there is an entry behind the last: %v", err)
	}
	for _, k := range modelKeys {
		got, err := s.Get([]byte(k))
		if want, ok := m.state[k]; ok != (err == nil) || string(got) != want {
			return fmt.Sprintf("%s is %q (%v), not %q", k, got, err, want)
		}
	}
	return ""
}

var modelKeys = []string{keyTerm, keyVoteTerm, keyVoteFor, keyCluster}

func entryFor(index, term uint64, size int) *hraft.Log {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(index) ^ byte(term)<<3 ^ byte(i*7)
	}
	return &hraft.Log{Index: index, Term: term, Type: hraft.LogType(index % 2 * 3), Data: data}
}

// cutDisk is a disk with a cache that a power cut loses, below the segments of a log.
type cutDisk struct {
	t      *rapid.T
	before map[block][]byte // what the sectors had at the last flush that have been written since; a block here is a sector
	fail   int              // the operation that fails, counted down, 0 for none
	cut    bool             // and it is a power cut, after which nothing goes
	err    error
}

var errCut = &fs.PathError{Op: "write", Path: "disk", Err: syscall.EIO}

func (d *cutDisk) below(s *logStore) {
	s.write = func(segment *segment, b []byte, at uint32) error {
		for i := range uint32(len(b) / sectorSize) {
			place := block{segment, at + i}
			if _, ok := d.before[place]; ok {
				continue
			}
			old := make([]byte, sectorSize)
			if _, err := segment.file.ReadAt(old, int64(at+i)*sectorSize); err != nil {
				return err
			}
			d.before[place] = old
		}
		if d.failed() {
			return errors.Join(d.err, writeSegment(segment, b[:len(b)/2/sectorSize*sectorSize], at))
		}
		return writeSegment(segment, b, at)
	}
	s.create = func(dir string, id uint64, sectors uint32, first []byte) (*segment, error) {
		if d.failed() {
			return nil, d.err
		}
		return createSegment(dir, id, sectors, first)
	}
	s.flush = func(*segment) error {
		if d.failed() {
			return d.err
		}
		clear(d.before)
		return nil
	}
}

func (d *cutDisk) failed() bool {
	if d.cut && d.fail < 0 {
		return true
	}
	if d.fail > 0 {
		if d.fail--; d.fail == 0 {
			if d.cut {
				d.fail = -1
			}
			return true
		}
	}
	return false
}

// settle decides what the disk has kept of its cache. A sector is as it was or as it was to be, or torn.
func (d *cutDisk) settle(tear bool) {
	manner := rapid.SampledFrom([]string{"all", "none", "some"}).Draw(d.t, "kept")
	places := slices.SortedFunc(maps.Keys(d.before), func(a, b block) int {
		return int(a.segment.id)<<20 + int(a.at) - int(b.segment.id)<<20 - int(b.at)
	})
	for _, place := range places {
		content := d.before[place]
		if manner == "all" || manner == "some" && rapid.Bool().Draw(d.t, "written") {
			if !tear || rapid.IntRange(0, 3).Draw(d.t, "torn") > 0 {
				continue
			}
			content = slices.Repeat([]byte{0xa5}, sectorSize)
		}
		if _, err := place.segment.file.WriteAt(content, int64(place.at)*sectorSize); err != nil {
			d.t.Fatal(err)
		}
	}
	clear(d.before)
	d.fail, d.cut = 0, false
}

// logMachine drives a log and its model.
type logMachine struct {
	t     *rapid.T
	dir   string
	log   *logStore
	disk  *cutDisk
	known *modelLog   // what was acknowledged
	maybe []*modelLog // what there may be instead after a cut: changes that failed since, or parts of them
	torn  bool        // a sector was torn, and nothing has been written since
	next  uint64
	term  uint64
}

func (m *logMachine) open() {
	log := openSmall(m.t, m.dir)
	m.log, m.disk = log, &cutDisk{t: m.t, before: map[block][]byte{}}
	m.disk.below(log)
}

// do makes a change that may fail, and that may be there in part if the power fails.
func (m *logMachine) do(change func() error, steps ...*modelLog) {
	err := change()
	m.log.tried = time.Time{} // the next try may come at once
	switch {
	case err == nil:
		m.known, m.maybe, m.torn = steps[len(steps)-1], nil, false
	case m.disk.err != nil && (errors.Is(err, m.disk.err) || errors.Is(err, store.ErrFull)):
		m.maybe = append(m.maybe, steps...)
		if wrong := m.known.differs(m.log); wrong != "" { // of several batches the first ones may be there
			i := slices.IndexFunc(steps, func(s *modelLog) bool { return s.differs(m.log) == "" })
			if i < 0 {
				m.t.Fatalf("after an error: %s", wrong)
			}
			m.known = steps[i]
		}
	default:
		m.t.Fatal(err)
	}
}

func (m *logMachine) appendEntries() {
	var entries []*hraft.Log
	var steps []*modelLog
	after := m.known.clone()
	next := m.next
	if len(after.terms) > 0 {
		next = after.last() + 1
	}
	if len(after.terms) > 0 && rapid.IntRange(0, 7).Draw(m.t, "again") == 0 { // as after a write that failed in the middle
		next = rapid.Uint64Range(after.first, after.last()).Draw(m.t, "from")
		after.remove(next, after.last())
		m.term++
	}
	count := rapid.SampledFrom([]int{1, 1, 1, 2, 9, 40}).Draw(m.t, "entries")
	for range count {
		size := rapid.SampledFrom([]int{0, 10, 300, 480, 4000, 30_000}).Draw(m.t, "size")
		if rapid.IntRange(0, 60).Draw(m.t, "huge") == 0 {
			size = 150_000
		}
		e := entryFor(next, m.term, size)
		entries = append(entries, e)
		after.append(e)
		steps = append(steps, after.clone())
		next++
	}
	m.next = max(m.next, next)
	m.do(func() error { return m.log.StoreLogs(entries) }, steps...)
}

func (m *logMachine) remove() {
	if len(m.known.terms) == 0 {
		return
	}
	first, last := m.known.first, m.known.last()
	switch rapid.SampledFrom([]string{"old", "old", "new", "all"}).Draw(m.t, "which") {
	case "old":
		last = rapid.Uint64Range(first, last).Draw(m.t, "until")
	case "new":
		first = rapid.Uint64Range(first, last).Draw(m.t, "from")
	}
	after := m.known.clone()
	after.remove(first, last)
	m.term++
	m.do(func() error { return m.log.DeleteRange(first, last) }, after)
}

func (m *logMachine) set() {
	after := m.known.clone()
	if rapid.Bool().Draw(m.t, "vote") {
		m.term++
		after.state[keyVoteTerm], after.state[keyVoteFor] = fmt.Sprint(m.term), "somebody"
		m.do(func() error {
			return errors.Join(m.log.Set([]byte(keyVoteTerm), fmt.Append(nil, m.term)), m.log.Set([]byte(keyVoteFor), []byte("somebody")))
		}, after)
		return
	}
	k := rapid.SampledFrom([]string{keyTerm, keyCluster}).Draw(m.t, "key")
	after.state[k] = rapid.StringN(0, 40, 40).Draw(m.t, "value")
	m.do(func() error { return m.log.Set([]byte(k), []byte(after.state[k])) }, after)
}

// restart opens the log again, after an orderly stop or a power cut.
func (m *logMachine) restart(cut, tear bool) {
	if cut {
		m.torn = m.torn || tear
		m.disk.settle(tear)
	} else {
		m.disk.fail = 0
		m.log.seal()
		m.maybe = append(m.maybe, m.known)
	}
	if err := m.log.close(); err != nil {
		m.t.Fatal(err)
	}
	m.open()
	for _, model := range append([]*modelLog{m.known}, m.maybe...) {
		if model.differs(m.log) == "" {
			m.known, m.maybe = model, nil
			return
		}
	}
	m.t.Fatalf("after a restart: %s", m.known.differs(m.log))
}

// TestLogModel compares the log with a model of it, whatever is done to it, with errors of the disk and power cuts at any write and flush.
func TestLogModel(t *testing.T) {
	inMemory(t)
	doubts := 0
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		m := &logMachine{t: t, dir: outer.TempDir(), known: &modelLog{state: map[string]string{}}, next: 1, term: 1}
		m.open()
		defer func() { _ = m.log.close() }()
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			fails := rapid.SampledFrom([]string{"", "", "", "EIO", "ENOSPC", "cut", "torn"}).Draw(t, "fails")
			if fails != "" {
				m.disk.fail = rapid.IntRange(1, 4).Draw(t, "at")
				m.disk.cut = fails == "cut" || fails == "torn"
				m.disk.err = errCut
				if fails == "ENOSPC" {
					m.disk.err = &fs.PathError{Op: "write", Path: "disk", Err: syscall.ENOSPC}
				}
			}
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				switch rapid.SampledFrom([]string{"append", "append", "append", "remove", "set"}).Draw(t, "change") {
				case "append":
					m.appendEntries()
				case "remove":
					m.remove()
				case "set":
					m.set()
				}
			}
			switch {
			case fails == "cut" || fails == "torn":
				m.restart(true, fails == "torn")
				if !m.torn && m.log.doubt != nil {
					t.Fatalf("a cut that tears no sector leaves a doubt: %v", m.log.doubt)
				}
				if m.log.doubt != nil {
					doubts++
					m.log.settleDoubt()
				}
			case rapid.IntRange(0, 3).Draw(t, "restart") == 0:
				m.restart(false, false)
			default:
				m.disk.fail = 0
				if wrong := m.known.differs(m.log); wrong != "" {
					t.Fatal(wrong)
				}
			}
		}
	})
	if doubts == 0 {
		t.Error("no sector was torn where it matters")
	}
}
