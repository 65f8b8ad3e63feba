package store

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store/seal"
)

const hidden = "correct horse battery staple"

// secret has its content at every place where one may be.
func secret(name string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name,
			Labels: map[string]string{"app": "a"}, Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: hidden},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "X", Name: "x", UID: "u-x", Controller: ptr.To(true)}},
		},
		Data: map[string][]byte{"password": []byte(hidden)},
	}
}

func newRing(t testing.TB) seal.Ring {
	return must(seal.NewRing(time.Now()))
}

// sealedFixture is a fixture whose durable store has a keyring.
func sealedFixture(t *testing.T) (*fixture, *seal.Keyring) {
	keys := new(seal.Keyring)
	if err := keys.Set(newRing(t)); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.durable = New(Config{Kinds: api.Kinds(), Sealer: keys})
	f.client = NewClient(ClientConfig{Durable: f.durable, Propose: NewLocal(f.durable), Now: func() time.Time { return f.now }})
	return f, keys
}

func TestSecretsAreSealed(t *testing.T) {
	f, _ := sealedFixture(t)
	_, _, watcher := f.durable.ListAndWatch("secrets", "")
	made := f.create(secret("a")).(*corev1.Secret)
	changed := made.DeepCopy()
	changed.Data["user"] = []byte(hidden)
	made = must(f.client.Update(t.Context(), changed)).(*corev1.Secret)
	key := KeyOf(f.durable, made)

	read, ok := Get[corev1.Secret](f.client.Reader(), "default", "a")
	if diff := cmp.Diff(made, read); !ok || diff != "" {
		t.Errorf("read back (-made +read):\n%s", diff)
	}
	if owned := ListBy[corev1.Secret](f.durable, OwnerIndex, "u-x"); len(owned) != 1 || string(owned[0].Data["user"]) != hidden {
		t.Errorf("found by its owner: %v", owned)
	}
	events := must(watcher.Next(t.Context()))
	last := events[len(events)-1]
	for _, item := range []Item{last.Item, {Key: key, Value: last.Prev, Revision: 1}} {
		if bytes.Contains(item.Value, []byte(hidden)) || bytes.Contains(item.Value, []byte("password")) || bytes.Contains(item.Value, []byte("app")) {
			t.Errorf("the value shows: %q", item.Value)
		}
		if obj, ok := f.durable.Object(item); !ok || string(obj.(*corev1.Secret).Data["password"]) != hidden {
			t.Errorf("the event decodes as %v", obj)
		}
		var partial metav1.PartialObjectMetadata
		if err := partial.Unmarshal(item.Value); err != nil || partial.UID != made.UID || len(partial.OwnerReferences) != 1 || partial.Labels != nil {
			t.Errorf("without a key it is %+v, %v", partial, err)
		}
		if obj, err := api.Decode(f.durable.Kind("secrets"), item.Value, 1); err == nil {
			t.Errorf("decoded without a key: %v", obj)
		}
	}

	before := f.durable.Revision()
	must(f.client.Update(t.Context(), made))
	must(f.client.Modify(t.Context(), key, "", func(api.Object) error { return nil }))
	if f.durable.Revision() != before {
		t.Error("an update without a change was written")
	}
	elsewhere := last.Item
	elsewhere.Key.Name = "b"
	if obj, err := f.durable.Decode(elsewhere); !errors.Is(err, ErrSealed) {
		t.Errorf("a value in the place of another: %v, %v", obj, err)
	}
	if item, _ := f.durable.Get(Key{Resource: "configmaps", Namespace: "default", Name: f.create(configMap("c")).GetName()}); isSealed(item.Value) {
		t.Error("a ConfigMap is sealed")
	}
	must(f.client.Delete(t.Context(), key, nil))
	if f.exists(made) {
		t.Error("it cannot be deleted")
	}
}

func TestReseal(t *testing.T) {
	f, keys := sealedFixture(t)
	ctx := t.Context()
	// A plain value, from before there were keys.
	plain := secret("old")
	plain.UID, plain.Type = "u-old", corev1.SecretTypeOpaque
	key := KeyOf(f.durable, plain)
	if _, err := NewLocal(f.durable).Propose(ctx, Txn{Ops: []Op{{Key: key, Value: must(api.Encode(plain))}}}); err != nil {
		t.Fatal(err)
	}
	stale := func() bool {
		t.Helper()
		item, ok := f.durable.Get(key)
		if !ok {
			t.Fatal("it is gone")
		}
		return must(f.durable.CheckSeal(item))
	}
	content := func() string {
		s, _ := Get[corev1.Secret](f.durable, "default", "old")
		return string(s.Data["password"])
	}
	if !stale() || content() != hidden {
		t.Fatalf("a plain value: stale %t, %q", stale(), content())
	}
	// A write that changes nothing seals it.
	must(f.client.Update(ctx, must(f.durable.Decode(must2(f.durable.Get(key))))))
	if stale() || content() != hidden {
		t.Errorf("after a write: stale %t, %q", stale(), content())
	}
	ring, id, err := keys.Ring().Stage(f.now)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Set(must(ring.Activate(id))); err != nil {
		t.Fatal(err)
	}
	if !stale() || content() != hidden {
		t.Errorf("after the rotation: stale %t, %q", stale(), content())
	}
	for range 2 { // the second one has nothing to do
		if err := f.client.Reseal(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	if stale() || content() != hidden || f.durable.Revision() != 3 {
		t.Errorf("sealed anew: stale %t, %q, revision %d", stale(), content(), f.durable.Revision())
	}
	rest, _ := keys.Ring().DropOld()
	if err := keys.Set(rest); err != nil {
		t.Fatal(err)
	}
	if content() != hidden {
		t.Errorf("after the old key was dropped: %q", content())
	}
	if err := f.client.Reseal(ctx, Key{Resource: "secrets", Namespace: "default", Name: "none"}); err != nil {
		t.Errorf("nothing to seal: %v", err)
	}
}

// TestSettle holds a proposal back: who settles waits for it, and nobody else waits for either.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := sealedFixture(t)
		held := &heldProposer{Proposer: NewLocal(f.durable), hold: make(chan struct{})}
		slow := NewClient(ClientConfig{Durable: f.durable, Propose: held})
		f.create(secret("before"))
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := slow.Create(t.Context(), secret("held")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()

		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.durable.Settle(hurried); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("it did not wait for the proposal: %v", err)
		}
		settled := make(chan error, 1)
		group.Go(func() { settled <- f.durable.Settle(t.Context()) })
		synctest.Wait()
		f.create(secret("after"))
		select {
		case err := <-settled:
			t.Fatalf("settled before the proposal was decided: %v", err)
		default:
		}
		close(held.hold)
		group.Wait()
		if err := <-settled; err != nil {
			t.Error(err)
		}
		if err := f.durable.Settle(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

type heldProposer struct {
	Proposer
	hold chan struct{}
}

func (p *heldProposer) Propose(ctx context.Context, txn Txn) (uint64, error) {
	<-p.hold
	return p.Proposer.Propose(ctx, txn)
}

func must2[T any](v T, ok bool) T {
	if !ok {
		panic("not there")
	}
	return v
}

func TestWrongKeys(t *testing.T) {
	f, keys := sealedFixture(t)
	ctx := t.Context()
	made := f.create(secret("a")).(*corev1.Secret)
	key := KeyOf(f.durable, made)
	if err := keys.Set(newRing(t)); err != nil {
		t.Fatal(err)
	}
	if _, ok := Get[corev1.Secret](f.durable, "default", "a"); ok {
		t.Error("read with another key")
	}
	made.ResourceVersion = ""
	made.Data = nil
	_, err := f.client.Update(ctx, made)
	if !apierrors.IsInternalError(err) || !errors.Is(f.client.Reseal(ctx, key), ErrSealed) {
		t.Errorf("updated with another key: %v", err)
	}
	if item, _ := f.durable.Get(key); item.Revision != 1 {
		t.Error("what cannot be read was overwritten")
	}
	held := secret("held")
	held.Finalizers = []string{"example.com/hold"}
	f.create(held)
	if err := keys.Set(newRing(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.Delete(ctx, KeyOf(f.durable, held), nil); !apierrors.IsInternalError(err) {
		t.Errorf("the deletion of one with a finalizer was noted by overwriting it: %v", err)
	}
	if _, err := f.client.Delete(ctx, key, metav1.NewPreconditionDeleteOptions("another")); !apierrors.IsConflict(err) {
		t.Errorf("deleted in spite of its UID: %v", err)
	}
	gone, err := f.client.Delete(ctx, key, nil)
	if err != nil || gone.GetUID() != made.UID || f.exists(made) {
		t.Errorf("what cannot be read cannot be deleted: %v, %v", gone, err)
	}
	if err := keys.Set(seal.Ring{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.Create(ctx, secret("b")); !apierrors.IsInternalError(err) || f.durable.Len("secrets") != 1 {
		t.Errorf("created without a key: %v", err)
	}
}

// FuzzSealedValue reads bytes from a log that nobody vouches for.
func FuzzSealedValue(f *testing.F) {
	keys := new(seal.Keyring)
	if err := keys.Set(newRing(f)); err != nil {
		f.Fatal(err)
	}
	s := New(Config{Kinds: api.Kinds(), Sealer: keys})
	key := Key{Resource: "secrets", Namespace: "default", Name: "a"}
	value := must(s.seal(key, must(api.Encode(secret("a")))))
	f.Add(value)
	f.Add(value[:len(value)/2])
	f.Add(sealedTag)
	f.Fuzz(func(t *testing.T, value []byte) {
		item := Item{Key: key, Value: value}
		s.newEntry(item)
		_, _ = s.CheckSeal(item)
		if obj, err := s.Decode(item); err == nil && isSealed(value) && obj.GetName() != "a" {
			t.Errorf("forged %v", obj)
		}
	})
}

// BenchmarkSecretWrite is what sealing costs a write and a read, beside those of a plain store.
func BenchmarkSecretWrite(b *testing.B) {
	keys := new(seal.Keyring)
	if err := keys.Set(newRing(b)); err != nil {
		b.Fatal(err)
	}
	for name, sealer := range map[string]Sealer{"plain": nil, "sealed": keys} {
		s := New(Config{Kinds: api.Kinds(), Sealer: sealer})
		c := NewClient(ClientConfig{Durable: s, Propose: NewLocal(s)})
		obj := secret("a")
		obj.Data["blob"] = make([]byte, 1024)
		if _, err := c.Create(b.Context(), obj); err != nil {
			b.Fatal(err)
		}
		b.Run("update/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				obj.Data["blob"][0] = byte(i)
				obj.Data["blob"][1] = byte(i >> 8)
				if _, err := c.Update(b.Context(), obj); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("get/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := Get[corev1.Secret](s, "default", "a"); !ok {
					b.Fatal("it is gone")
				}
			}
		})
	}
}
