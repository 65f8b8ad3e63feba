package store

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"unique"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// Defaults of Config.
const (
	DefaultHistory      = 4096
	DefaultHistoryBytes = 4 << 20
)

// Config configures a Store.
type Config struct {
	// Kinds is the table of served kinds. Objects of other resources are kept, but neither indexed nor decoded.
	Kinds []*api.Kind
	// History and HistoryBytes bound the events that watches can resume from.
	History      int
	HistoryBytes int64
	// FirstRevision is where the revisions of a fresh store begin.
	FirstRevision uint64
	// Persisted says that somebody calls Changes regularly; otherwise no changes are collected.
	Persisted bool
	// Sealer encrypts the objects of sensitive kinds, and decrypts them when they are read. Nil: they are stored as they are.
	Sealer Sealer
	// Converter converts custom objects whose definitions have webhooks for that. Nil: such are served in the version that is stored only.
	Converter custom.Converter
	Logger    *slog.Logger
}

// Store holds objects in memory. Its zero value is not usable: call New.
type Store struct {
	kinds     map[string]*api.Kind
	types     map[reflect.Type]*api.Kind
	persisted bool
	customs   customs
	sealer    Sealer
	converter custom.Converter
	sealing   *inFlight // from sealing a value until its proposal is decided
	turns     *turns
	logger    *slog.Logger

	mu       sync.RWMutex
	revision uint64
	tables   map[string]*table
	history  *history
	watchers map[string]map[*Watcher]struct{}
	waiters  map[*waiter]struct{}
	changed  map[Key]struct{}
	replaced bool // since the last Changes
}

// New returns an empty store.
func New(cfg Config) *Store {
	if cfg.History <= 0 {
		cfg.History = DefaultHistory
	}
	if cfg.HistoryBytes <= 0 {
		cfg.HistoryBytes = DefaultHistoryBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		kinds:     make(map[string]*api.Kind, len(cfg.Kinds)),
		types:     make(map[reflect.Type]*api.Kind, len(cfg.Kinds)),
		persisted: cfg.Persisted,
		sealer:    cfg.Sealer,
		converter: cfg.Converter,
		sealing:   newInFlight(),
		turns:     &turns{taken: map[Key]*turn{}},
		logger:    cfg.Logger,
		revision:  cfg.FirstRevision,
		tables:    map[string]*table{},
		history:   newHistory(cfg.History, cfg.HistoryBytes, cfg.FirstRevision),
		watchers:  map[string]map[*Watcher]struct{}{},
		waiters:   map[*waiter]struct{}{},
		changed:   map[Key]struct{}{},
	}
	for _, kind := range cfg.Kinds {
		s.kinds[kind.GroupResource()] = kind
		s.types[reflect.TypeOf(kind.New())] = kind
	}
	return s
}

// Kind returns the kind stored under a group-resource such as "deployments.apps", or nil.
func (s *Store) Kind(resource string) *api.Kind {
	if kind := s.kinds[resource]; kind != nil {
		return kind
	}
	return s.customKind(resource)
}

// KindFor returns the kind of a Go object, or nil.
func (s *Store) KindFor(obj api.Object) *api.Kind {
	if o, ok := obj.(*custom.Object); ok {
		return o.Kind()
	}
	return s.types[reflect.TypeOf(obj)]
}

// Revision is the newest revision that has been applied.
func (s *Store) Revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

// Get returns one item.
func (s *Store) Get(key Key) (Item, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.tables[key.Resource].get(key); e != nil {
		return e.item, true
	}
	return Item{}, false
}

// List returns the items of one namespace (all for the empty one), sorted by namespace and name, and the revision at
// which they all are true.
func (s *Store) List(resource, namespace string) ([]Item, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tables[resource].list(namespace), s.revision
}

// ByIndex returns the items that the kind's Index function (or the index "owner") files under the value, sorted.
func (s *Store) ByIndex(resource, index, value string) []Item {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tables[resource]; t != nil {
		return items(t.indexes[indexed{index, value}])
	}
	return nil
}

// Len is the number of objects of a resource.
func (s *Store) Len(resource string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tables[resource]; t != nil {
		return t.entries.count
	}
	return 0
}

// Apply commits a transaction at a revision: all of it, or, when an expectation fails (*ConflictError) or the transaction is
// malformed, nothing. The revision counts as applied in every case. Only the one who orders transactions calls it, one
// call at a time; it depends on nothing but the state and its arguments.
func (s *Store) Apply(revision uint64, txn Txn) error {
	fresh := make([]*entry, len(txn.Ops))
	for i, op := range txn.Ops {
		if op.Value != nil {
			fresh[i] = s.newEntry(Item{Key: op.Key, Revision: revision, Value: op.Value})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision <= s.revision {
		return fmt.Errorf("store: revision %d is not above %d", revision, s.revision)
	}
	err := s.check(txn)
	if err == nil {
		for i, op := range txn.Ops {
			s.change(op.Key, fresh[i], revision)
		}
		s.history.trim()
	}
	s.revision = revision
	s.releaseWaiters()
	return err
}

func (s *Store) check(txn Txn) error {
	for i, op := range txn.Ops {
		for _, earlier := range txn.Ops[:i] {
			if earlier.Key.Resource == op.Key.Resource {
				return fmt.Errorf("store: a transaction touches two objects of %q: %s and %s", op.Key.Resource, earlier.Key, op.Key)
			}
		}
		if op.Key.Resource == "" || op.Key.Name == "" {
			return fmt.Errorf("store: incomplete key %q", op.Key)
		}
		have := Absent
		if e := s.tables[op.Key.Resource].get(op.Key); e != nil {
			have = e.item.Revision
		}
		if op.Expect != Any && op.Expect != have {
			return &ConflictError{Key: op.Key, Expect: op.Expect, Have: have}
		}
	}
	return nil
}

// change makes one operation happen; fresh is nil for a deletion.
func (s *Store) change(key Key, fresh *entry, revision uint64) {
	t := s.tables[key.Resource]
	older := t.get(key)
	var event Event
	switch {
	case fresh == nil && older == nil:
		return // deleting nothing changes nothing
	case fresh == nil:
		t.delete(older)
		gone := older.item
		gone.Revision = revision
		event = Event{Type: Deleted, Item: gone, Prev: older.item.Value, PrevRevision: older.item.Revision}
	default:
		if t == nil {
			t = newTable()
			s.tables[key.Resource] = t
		}
		t.put(fresh, older)
		event = Event{Type: Added, Item: fresh.item}
		if older != nil {
			event.Type, event.Prev, event.PrevRevision = Modified, older.item.Value, older.item.Revision
		}
	}
	if s.persisted {
		s.changed[event.Item.Key] = struct{}{}
	}
	s.history.add(event)
	s.notify(&event)
}

// newEntry reads the index values of an item. Bytes that do not decode are stored without: they came through the log, so
// every server must keep the same.
func (s *Store) newEntry(item Item) *entry {
	item.Key.Resource = unique.Make(item.Key.Resource).Value()
	item.Key.Namespace = unique.Make(item.Key.Namespace).Value()
	e := &entry{item: item}
	if owner := controllerUID(item.Value); owner != "" {
		e.index = append(e.index, indexed{OwnerIndex, owner})
	}
	kind := s.kinds[item.Key.Resource]
	if kind == nil || kind.Index == nil || kind.Sensitive {
		return e
	}
	if obj, ok := s.Object(item); ok {
		for name, value := range kind.Index(obj) {
			e.index = append(e.index, indexed{unique.Make(name).Value(), unique.Make(value).Value()})
		}
	}
	return e
}

type waiter struct {
	revision uint64
	done     chan struct{}
}

// Wait returns when the revision has been applied.
func (s *Store) Wait(ctx context.Context, revision uint64) error {
	s.mu.Lock()
	if s.revision >= revision {
		s.mu.Unlock()
		return nil
	}
	w := &waiter{revision: revision, done: make(chan struct{})}
	s.waiters[w] = struct{}{}
	s.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.waiters, w)
		s.mu.Unlock()
		return fmt.Errorf("store: waiting for revision %d: %w", revision, ctx.Err())
	}
}

func (s *Store) releaseWaiters() {
	for w := range s.waiters {
		if w.revision <= s.revision {
			close(w.done)
			delete(s.waiters, w)
		}
	}
}
