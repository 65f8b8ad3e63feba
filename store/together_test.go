package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
)

// book counts pods in an object of its own, so that there are never more than two.
type book struct{ store *Store }

var bookKey = Key{Resource: "books.test", Name: "pods"}

func (b book) review(ctx context.Context, a *Admission) error {
	if _, ok := a.Object.(*corev1.Pod); !ok || a.Operation != OpCreate {
		return nil
	}
	if err := a.Alone(ctx, bookKey); err != nil {
		return err
	}
	op := Op{Key: bookKey, Value: []byte("x"), Expect: Absent}
	if item, ok := b.store.Get(bookKey); ok {
		op.Expect = item.Revision
	}
	if pods, _ := a.Reader.List("pods", ""); len(pods) >= 2 {
		return errors.New("full")
	}
	a.Also(op)
	return nil
}

// staleOnce lets another write come between an admission and its proposal, once.
type staleOnce struct {
	Proposer
	between func()
}

func (s *staleOnce) Propose(ctx context.Context, txn Txn) (uint64, error) {
	if f := s.between; f != nil {
		s.between = nil
		f()
	}
	return s.Proposer.Propose(ctx, txn)
}

func TestWhatGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Kinds: api.Kinds()})
		proposer := &staleOnce{Proposer: NewLocal(s)}
		c := NewClient(ClientConfig{Durable: s, Propose: proposer, Review: []Admitter{AdmitFunc(book{s}.review)}})
		proposer.between = func() {
			if _, err := write(proposer, Op{Key: bookKey, Value: []byte("other"), Expect: Any}); err != nil {
				t.Error(err)
			}
		}
		results := make(chan error, 5)
		for i := range cap(results) {
			go func() {
				_, err := c.Create(t.Context(), pod(fmt.Sprintf("p%d", i), ""))
				results <- err
			}()
		}
		var made, refused int
		for range cap(results) {
			switch err := <-results; {
			case err == nil:
				made++
			case apierrors.IsForbidden(err):
				refused++
			default:
				t.Error(err)
			}
		}
		if made != 2 || refused != 3 {
			t.Errorf("%d made, %d refused", made, refused)
		}
		if len(s.turns.taken) != 0 {
			t.Errorf("turns are still taken: %v", s.turns.taken)
		}
		if item, _ := s.Get(bookKey); string(item.Value) != "x" {
			t.Errorf("%q", item.Value)
		}
	})
}

// write has one operation ordered, past the client.
func write(p Proposer, op Op) (uint64, error) {
	return p.Propose(context.Background(), Txn{Ops: []Op{op}})
}

func TestATurnEndsWithItsContext(t *testing.T) {
	ts := &turns{taken: map[Key]*turn{}}
	release, err := ts.take(t.Context(), bookKey)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ts.take(ctx, bookKey); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	release()
	if len(ts.taken) != 0 {
		t.Errorf("%v", ts.taken)
	}
}

// What follows from a removal happens with the removal, not when an object begins to terminate.
func TestWhatGoesWithARemoval(t *testing.T) {
	s := New(Config{Kinds: api.Kinds()})
	c := NewClient(ClientConfig{Durable: s, Propose: NewLocal(s), Removed: func(Reader, api.Object) []Op {
		return []Op{{Key: bookKey, Expect: Any}}
	}})
	if _, err := write(NewLocal(s), Op{Key: bookKey, Value: []byte("x"), Expect: Absent}); err != nil {
		t.Fatal(err)
	}
	held := configMap("held")
	held.Finalizers = []string{"a.b/c"}
	made := must(c.Create(t.Context(), held))
	must(c.Delete(t.Context(), KeyOf(s, made), nil))
	if _, there := s.Get(bookKey); !there {
		t.Fatal("it went before the object")
	}
	must(c.Modify(t.Context(), KeyOf(s, made), "", func(o api.Object) error {
		o.SetFinalizers(nil)
		return nil
	}))
	if _, there := s.Get(bookKey); there {
		t.Error("it stayed behind")
	}
}

func TestReviewsComeAfterValidation(t *testing.T) {
	s := New(Config{Kinds: api.Kinds()})
	asked := false
	c := NewClient(ClientConfig{Durable: s, Propose: NewLocal(s), Review: []Admitter{AdmitFunc(func(context.Context, *Admission) error {
		asked = true
		return nil
	})}})
	bad := pod("p", "")
	bad.Spec.Containers = nil
	_, err := c.Create(t.Context(), bad)
	if !apierrors.IsInvalid(err) || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
}
