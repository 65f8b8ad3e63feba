package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// model is the store as a person would write it down: the present objects and every event ever.
type model struct {
	revision uint64
	items    map[Key]Item
	events   []Event
}

func (m *model) apply(revision uint64, txn Txn) bool {
	m.revision = revision
	seen := map[string]bool{}
	for _, op := range txn.Ops {
		if seen[op.Key.Resource] || op.Expect != Any && op.Expect != m.items[op.Key].Revision {
			return false
		}
		seen[op.Key.Resource] = true
	}
	for _, op := range txn.Ops {
		older, existed := m.items[op.Key]
		item := Item{Key: op.Key, Revision: revision, Value: op.Value}
		event := Event{Type: Added, Item: item, Prev: older.Value, PrevRevision: older.Revision}
		switch {
		case op.Value == nil && !existed:
			continue
		case op.Value == nil:
			event.Type, event.Item.Value = Deleted, older.Value
			delete(m.items, op.Key)
		case existed:
			event.Type = Modified
			m.items[op.Key] = item
		default:
			m.items[op.Key] = item
		}
		m.events = append(m.events, event)
	}
	return true
}

func (m *model) list(resource, namespace string) []Item {
	var out []Item
	for _, key := range slices.SortedFunc(maps.Keys(m.items), compareFull) {
		if key.Resource == resource && (namespace == "" || key.Namespace == namespace) {
			out = append(out, m.items[key])
		}
	}
	return out
}

// at is the model as it was at a revision.
func (m *model) at(revision uint64) *model {
	past := &model{revision: revision, items: map[Key]Item{}}
	for _, e := range m.events {
		switch {
		case e.Item.Revision > revision:
		case e.Type == Deleted:
			delete(past.items, e.Item.Key)
		default:
			past.items[e.Item.Key] = e.Item
		}
	}
	return past
}

func (m *model) after(resource, namespace string, revision uint64) []Event {
	var out []Event
	for _, e := range m.events {
		if e.Item.Revision > revision && e.Item.Key.Resource == resource && (namespace == "" || e.Item.Key.Namespace == namespace) {
			out = append(out, e)
		}
	}
	return out
}

func drawKey(t *rapid.T) Key {
	return Key{
		Resource:  rapid.SampledFrom([]string{"as", "bs", "cs"}).Draw(t, "resource"),
		Namespace: rapid.SampledFrom([]string{"x", "xx", "y"}).Draw(t, "namespace"),
		Name:      rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name"),
	}
}

func drawTxn(t *rapid.T, m *model) Txn {
	var txn Txn
	for range rapid.IntRange(1, 3).Draw(t, "ops") {
		op := Op{Key: drawKey(t)}
		have := m.items[op.Key].Revision
		op.Expect = rapid.SampledFrom([]uint64{have, have, have, Any, Any, Absent, have + 1}).Draw(t, "expect")
		if rapid.IntRange(0, 3).Draw(t, "put") > 0 {
			op.Value = fmt.Appendf(nil, "v%d", len(m.events))
		}
		txn.Ops = append(txn.Ops, op)
	}
	return txn
}

// follower drains a watcher whenever it likes and must see just what the model has.
type follower struct {
	resource, namespace string
	after               uint64
	watcher             *Watcher
	got                 []Event
}

func (f *follower) drain(t *rapid.T) {
	for {
		events, err := f.watcher.take()
		if err != nil {
			t.Fatalf("watch %s after %d: %v", f.resource, f.after, err)
		}
		if len(events) == 0 {
			return
		}
		f.got = append(f.got, events...)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Config{Persisted: true})
		m := &model{items: map[Key]Item{}}
		checkpoint := map[Key]Item{}
		var followers []*follower
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				txn := drawTxn(t, m)
				revision := m.revision + rapid.Uint64Range(1, 3).Draw(t, "step")
				want := m.apply(revision, txn)
				if err := s.Apply(revision, txn); (err == nil) != want {
					t.Fatalf("Apply(%d, %+v) = %v, the model says %v", revision, txn, err, want)
				}
			},
			"watch": func(t *rapid.T) {
				key := drawKey(t)
				f := &follower{resource: key.Resource, namespace: rapid.SampledFrom([]string{"", key.Namespace}).Draw(t, "in")}
				f.after = rapid.Uint64Range(0, m.revision).Draw(t, "after")
				var err error
				if f.watcher, err = s.Watch(f.resource, f.namespace, f.after); err != nil {
					t.Fatal(err)
				}
				followers = append(followers, f)
			},
			"drain": func(t *rapid.T) {
				if len(followers) > 0 {
					rapid.SampledFrom(followers).Draw(t, "follower").drain(t)
				}
			},
			"past": func(t *rapid.T) {
				key, revision := drawKey(t), rapid.Uint64Range(0, m.revision).Draw(t, "revision")
				namespace := rapid.SampledFrom([]string{"", key.Namespace}).Draw(t, "in")
				got, err := s.ListAt(key.Resource, namespace, revision)
				if diff := cmp.Diff(m.at(revision).list(key.Resource, namespace), got, cmpopts.EquateEmpty()); diff != "" || err != nil {
					t.Fatalf("list of %s at %d: %v (-model +store):\n%s", key.Resource, revision, err, diff)
				}
			},
			"checkpoint": func(t *rapid.T) {
				changes := s.Changes()
				if rapid.Bool().Draw(t, "fails") {
					changes.Undo()
					return
				}
				for _, item := range changes.Put {
					checkpoint[item.Key] = item
				}
				for _, key := range changes.Deleted {
					delete(checkpoint, key)
				}
				if diff := cmp.Diff(m.items, checkpoint); diff != "" {
					t.Fatalf("checkpoint differs (-model +checkpoint):\n%s", diff)
				}
			},
			"": func(t *rapid.T) {
				for _, resource := range []string{"as", "bs", "cs"} {
					for _, namespace := range []string{"", "x"} {
						got, revision := s.List(resource, namespace)
						if diff := cmp.Diff(m.list(resource, namespace), got); diff != "" || revision != m.revision {
							t.Fatalf("list of %s at %d (-model +store):\n%s", resource, revision, diff)
						}
					}
				}
			},
		})
		for _, f := range followers {
			f.drain(t)
			if diff := cmp.Diff(m.after(f.resource, f.namespace, f.after), f.got); diff != "" {
				t.Fatalf("watch of %s in %q after %d (-model +watch):\n%s", f.resource, f.namespace, f.after, diff)
			}
		}
	})
}

// TestBoundedHistory lets watchers fall behind a tiny history: each sees all of its events or is cut off, and what a new
// watch accepts as its start is exactly what it can serve.
func TestBoundedHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Config{History: 4})
		m := &model{items: map[Key]Item{}}
		f := &follower{resource: "as", namespace: "x"}
		f.watcher, _ = s.Watch(f.resource, f.namespace, 0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			txn := drawTxn(t, m)
			m.apply(m.revision+1, txn)
			_ = s.Apply(m.revision, txn)
			if f.watcher == nil || rapid.IntRange(0, 2).Draw(t, "drain") > 0 {
				continue
			}
			missed := len(m.after(f.resource, f.namespace, 0)) - len(f.got)
			events, err := f.watcher.take()
			switch {
			case errors.Is(err, ErrSlow) && missed == 0:
				t.Fatal("a watcher that had seen everything was cut off")
			case errors.Is(err, ErrSlow):
				f.watcher = nil
			default:
				f.got = append(f.got, events...)
				if diff := cmp.Diff(m.after(f.resource, f.namespace, 0), f.got); diff != "" {
					t.Fatalf("(-model +watch):\n%s", diff)
				}
			}
		}
		after := rapid.Uint64Range(0, m.revision).Draw(t, "after")
		past, pastErr := s.ListAt("bs", "", after)
		w, err := s.Watch("bs", "", after)
		if !errors.Is(pastErr, ErrGone) == (err != nil) {
			t.Fatalf("a list of revision %d says %v, a watch after it %v", after, pastErr, err)
		}
		if err != nil {
			if !errors.Is(err, ErrGone) || len(m.after("bs", "", after)) == 0 {
				t.Fatalf("a watch after %d fails without need: %v", after, err)
			}
			return
		}
		if diff := cmp.Diff(m.at(after).list("bs", ""), past, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("list of revision %d (-model +store):\n%s", after, diff)
		}
		events, err := w.take()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m.after("bs", "", after), events); diff != "" {
			t.Fatalf("watch after %d (-model +watch):\n%s", after, diff)
		}
	})
}

func TestLongBacklogComesInBatches(t *testing.T) {
	s := New(Config{})
	w, err := s.Watch("as", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	const total = 2*maxBatch + 10
	for i := range uint64(total) {
		_ = s.Apply(i+1, Txn{Ops: []Op{{Key: Key{"as", "x", "a"}, Value: []byte("v"), Expect: Any}}})
	}
	for next := uint64(1); next <= total; {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Item.Revision != next {
				t.Fatalf("revision %d came, want %d", e.Item.Revision, next)
			}
			next++
		}
		if progress := w.Progress(); progress != next-1 {
			t.Fatalf("progress %d after revision %d", progress, next-1)
		}
	}
}

func TestNextWakesAndEnds(t *testing.T) {
	s := New(Config{})
	ctx := t.Context()
	items, revision, w := s.ListAndWatch("as", "")
	if len(items) != 0 || revision != 0 {
		t.Fatalf("a new store lists %v at %d", items, revision)
	}
	type result struct {
		events []Event
		err    error
	}
	results := make(chan result)
	go func() {
		for {
			events, err := w.Next(ctx)
			results <- result{events, err}
			if err != nil {
				return
			}
		}
	}()
	key := Key{"as", "x", "a"}
	if err := s.Apply(7, Txn{Ops: []Op{{Key: key, Value: []byte("v")}}}); err != nil {
		t.Fatal(err)
	}
	want := []Event{{Type: Added, Item: Item{Key: key, Revision: 7, Value: []byte("v")}}}
	if got := <-results; got.err != nil || !cmp.Equal(want, got.events) {
		t.Fatalf("Next = %v, want %v", got, want)
	}
	s.Load(9, nil)
	if got := <-results; !errors.Is(got.err, ErrGone) {
		t.Fatalf("Next after a restore = %v, want ErrGone", got)
	}
	w.Close()
	if _, err := s.Watch("as", "", 8); !errors.Is(err, ErrGone) {
		t.Fatalf("a watch from before the restore: %v, want ErrGone", err)
	}
}

func TestWait(t *testing.T) {
	s := New(Config{})
	done := make(chan error)
	go func() { done <- s.Wait(t.Context(), 2) }()
	_ = s.Apply(1, Txn{})
	_ = s.Apply(3, Txn{})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, 4); !errors.Is(err, context.Canceled) {
		t.Fatalf("Wait = %v, want canceled", err)
	}
	if err := s.Apply(3, Txn{}); err == nil {
		t.Fatal("a revision was applied twice")
	}
}
