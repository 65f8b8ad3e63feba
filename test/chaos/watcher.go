package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// pulse is an object that changes all the time, so that a watch that hears nothing is known to be stuck.
const pulse = "pulse"

const (
	pulseEvery = 200 * time.Millisecond
	// stuckAfter is when a watcher gives up on a stream that is silent.
	stuckAfter = 2 * time.Second
	// goBack is how many revisions of the past a replaying watcher asks for again.
	goBack = 150
)

// change is one event of a watch.
type change struct {
	kind     string // ADDED, MODIFIED, DELETED
	key      string
	revision uint64
	value    string
}

// filter is what a watch selects: everything, the phase a, or one name.
type filter string

const (
	all     filter = ""
	phaseA  filter = "phase=a"
	pulseIs filter = "name=" + pulse
)

func (f filter) matches(key, value string) bool {
	switch f {
	case phaseA:
		return phaseOf(value) == "a"
	case pulseIs:
		return key == pulse
	}
	return true
}

func (f filter) query() (label, field string) {
	switch f {
	case phaseA:
		return labelPhase + "=a", ""
	case pulseIs:
		return "", "metadata.name=" + pulse
	}
	return "", ""
}

// stream is one connection of a watcher: it must have heard exactly what the filter selects of the changes in (from, to].
type stream struct {
	watcher string
	server  int
	filter  filter
	from    uint64
	to      uint64
	events  []change
	marks   int // bookmarks
}

// gone is a refusal to go on from a revision.
type gone struct {
	server int
	after  uint64
	heard  time.Duration // when the watcher had heard of something last
	who    string
}

// record is all that the watchers of a cluster have heard.
type record struct {
	base uint64 // where the record begins

	mu        sync.Mutex
	streams   []*stream
	snapshots []snapshot
	gones     []gone
	faults    []string // what a watcher saw at once that must not be
}

func (r *record) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// watcher watches the objects of the namespace for as long as its cluster lives, at one server after another.
type watcher struct {
	name   string
	filter filter
	// timeout ends a stream from the server's side; 0 keeps it until it breaks.
	timeout   int
	bookmarks bool
	// replay goes back a little with each new stream; fresh begins with a list in the stream each time.
	replay, fresh bool

	rng    *rand.Rand
	apis   []*api
	record *record
	since  func() time.Duration
	server int

	mu   sync.Mutex
	at   uint64 // it has heard everything up to here
	when time.Duration
}

func newWatchers(c *Cluster, r *record) []*watcher {
	all := []*watcher{
		{name: "patient", filter: all, bookmarks: true},
		{name: "restless", filter: all, timeout: 1},
		{name: "replaying", filter: all, timeout: 1, replay: true},
		{name: "plain", filter: all, timeout: 3, bookmarks: true},
		{name: "fresh", filter: all, timeout: 2, bookmarks: true, fresh: true},
		{name: "patient-phase", filter: phaseA, bookmarks: true},
		{name: "restless-phase", filter: phaseA, timeout: 1, bookmarks: true},
		{name: "pulse", filter: pulseIs, timeout: 2, bookmarks: true},
		{name: "fresh-phase", filter: phaseA, timeout: 3, bookmarks: true, fresh: true},
	}
	for i, w := range all {
		w.rng = rand.New(rand.NewPCG(uint64(i), 77))
		w.record, w.since, w.server = r, c.since, i%len(c.servers)
		for _, s := range c.servers {
			w.apis = append(w.apis, s.admin.again())
		}
	}
	return all
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	defer func() {
		for _, a := range w.apis {
			a.http.CloseIdleConnections()
		}
	}()
	for ctx.Err() == nil {
		healthy := w.once(ctx)
		if !healthy {
			w.server = w.rng.IntN(len(w.apis))
			select {
			case <-ctx.Done():
			case <-time.After(20*time.Millisecond + upTo(w.rng, 50*time.Millisecond)):
			}
		} else if w.rng.IntN(3) == 0 {
			w.server = w.rng.IntN(len(w.apis))
		}
	}
}

func (w *watcher) heard() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *watcher) hears(revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.when = max(w.at, revision), w.since()
}

// forget makes the watcher list again. It returns when the watcher has heard of something last.
func (w *watcher) forget() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = 0
	return w.when
}

// once makes one stream and reports whether it ended as streams do.
func (w *watcher) once(ctx context.Context) bool {
	from := w.heard()
	if from == 0 && !w.fresh {
		limited, cancel := context.WithTimeout(ctx, opTimeout)
		defer cancel()
		snap, err := listAll(limited, w.apis[w.server], fmt.Sprintf("list of watcher %s at server-%d", w.name, w.server+1))
		if err != nil {
			return false
		}
		w.record.mu.Lock()
		w.record.snapshots = append(w.record.snapshots, snap)
		w.record.mu.Unlock()
		from = snap.revision
		w.hears(from)
	} else if w.replay {
		from = max(w.record.base, from-min(from, w.rng.Uint64N(goBack)))
	}
	return w.stream(ctx, from)
}

func (w *watcher) path(from uint64) string {
	label, field := w.filter.query()
	pairs := []string{"watch", "true", "labelSelector", label, "fieldSelector", field}
	if w.timeout > 0 {
		pairs = append(pairs, "timeoutSeconds", fmt.Sprint(w.timeout))
	}
	if w.bookmarks {
		pairs = append(pairs, "allowWatchBookmarks", "true")
	}
	if w.fresh {
		pairs = append(pairs, "sendInitialEvents", "true", "resourceVersionMatch", "NotOlderThan")
	} else {
		pairs = append(pairs, "resourceVersion", fmt.Sprint(from))
	}
	return configMaps + query(pairs...)
}

func (w *watcher) stream(ctx context.Context, from uint64) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(stuckAfter+opTimeout, cancel) // the beginning may have to wait for a leader
	defer silence.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.apis[w.server].base+w.path(from), nil)
	if err != nil {
		w.record.fault("watcher %s: %v", w.name, err)
		return false
	}
	answer, err := w.apis[w.server].http.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		if answer.StatusCode == http.StatusGone {
			w.expired(from)
		}
		return false
	}
	// Every line is put on record before the next is read.
	lines := bufio.NewReaderSize(answer.Body, 64<<10)
	s := &stream{watcher: w.name, server: w.server, filter: w.filter, from: from, to: from}
	in := input{watcher: w, stream: s}
	if w.fresh {
		in.initial = map[string]version{}
	} else {
		w.record.open(s)
	}
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return errors.Is(err, io.EOF) && len(line) == 0
		}
		silence.Reset(stuckAfter)
		if !in.take(line) {
			return false
		}
	}
}

func (r *record) open(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams = append(r.streams, s)
}

func (w *watcher) expired(from uint64) {
	heard := w.forget()
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	w.record.gones = append(w.record.gones, gone{server: w.server, after: from, heard: heard, who: w.name})
}

// input takes the lines of a stream.
type input struct {
	*watcher
	stream  *stream
	initial map[string]version // while a list is sent in the stream
}

type line struct {
	Type   string `json:"type"`
	Object thing  `json:"object"`
}

func (in *input) take(data []byte) bool {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		in.record.fault("watcher %s got a broken event: %.200s", in.name, data)
		return false
	}
	t := &l.Object
	switch {
	case l.Type == "ERROR" && t.Code == http.StatusGone:
		in.expired(max(in.stream.to, in.stream.from))
		return false
	case l.Type == "ERROR":
		return false
	case l.Type == "BOOKMARK" && in.initial != nil:
		if t.Metadata.Annotations["k8s.io/initial-events-end"] != "true" {
			in.record.fault("watcher %s: a bookmark among the initial events", in.name)
		}
		in.begin(t.revision())
	case in.initial != nil:
		if l.Type != "ADDED" {
			in.record.fault("watcher %s: %s among the initial events", in.name, l.Type)
		}
		in.initial[t.Metadata.Name] = version{t.revision(), t.Data["value"]}
	default:
		in.record.mu.Lock()
		defer in.record.mu.Unlock()
		in.record.hear(in.stream, l.Type, t)
		in.hears(t.revision())
	}
	return true
}

// hear puts an event or a bookmark on record, and at once what is wrong with its place. Callers hold the lock.
func (r *record) hear(s *stream, kind string, t *thing) {
	revision := t.revision()
	switch {
	case kind == "BOOKMARK" && revision < s.to:
		r.faults = append(r.faults, fmt.Sprintf("watcher %s at server-%d: bookmark %d after revision %d", s.watcher, s.server+1, revision, s.to))
	case kind == "BOOKMARK":
		s.marks++
	case revision <= s.to:
		r.faults = append(r.faults, fmt.Sprintf("watcher %s at server-%d: %s of %s at revision %d after revision %d",
			s.watcher, s.server+1, kind, t.Metadata.Name, revision, s.to))
	default:
		s.events = append(s.events, change{kind, t.Metadata.Name, revision, t.Data["value"]})
	}
	s.to = max(s.to, revision)
}

// begin ends the initial events: they are a list at a revision, from which the stream goes on.
func (in *input) begin(revision uint64) {
	if in.filter == all {
		in.record.mu.Lock()
		in.record.snapshots = append(in.record.snapshots, snapshot{
			who:      fmt.Sprintf("initial events of watcher %s at server-%d", in.name, in.server+1),
			revision: revision, items: in.initial,
		})
		in.record.mu.Unlock()
	}
	if heard := in.heard(); revision < heard {
		in.record.fault("watcher %s at server-%d: the initial events are of revision %d, but %d was heard before", in.name, in.server+1,
			revision, heard)
	}
	in.stream.from, in.stream.to, in.initial = revision, revision, nil
	in.record.open(in.stream)
	in.hears(revision)
}
