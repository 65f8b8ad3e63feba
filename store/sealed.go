package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// Sealer encrypts and decrypts the values of sensitive kinds. It is safe for concurrent use. The additional data is not
// part of the sealed value, and a value opens only with the same.
type Sealer interface {
	Seal(plain, additional []byte) ([]byte, error)
	Open(sealed, additional []byte) ([]byte, error)
	// Check reports, without opening it, whether a sealed value should be sealed again, as it was with an older key. The error
	// says why it cannot be opened.
	Check(sealed []byte) (stale bool, err error)
}

// ErrSealed says that this server cannot open a sealed value.
var ErrSealed = errors.New("it is encrypted, and this server cannot open it")

// A sealed value is a Protobuf message too, of two fields:
//
//	sealedField: what the Sealer made of the object's bytes;
//	objectMetadata: what the store and the controllers need to know of an object that they cannot read.
//
// The store that applies the log needs no key thus, and treats all values alike. The key of the object and the second field
// are bound to the first one as its additional data, so that no value opens in the place of another.
const sealedField = 24225

var sealedTag = protowire.AppendTag(nil, sealedField, protowire.BytesType)

// Sealed returns what a Sealer made of the object, or false if the item is plain.
func (i *Item) Sealed() ([]byte, bool) {
	sealed, _, ok := splitSealed(i.Value)
	return sealed, ok
}

func isSealed(value []byte) bool { return bytes.HasPrefix(value, sealedTag) }

// splitSealed takes a sealed value apart; ok says that it is one. A malformed one has no parts.
func splitSealed(value []byte) (sealed, clear []byte, ok bool) {
	if !isSealed(value) {
		return nil, nil, false
	}
	sealed, n := protowire.ConsumeBytes(value[len(sealedTag):])
	if n < 0 {
		return nil, nil, true
	}
	return sealed, value[len(sealedTag)+n:], true
}

// seal makes the bytes to be stored of an object's plain ones.
func (s *Store) seal(key Key, plain []byte) ([]byte, error) {
	if kind := s.kinds[key.Resource]; s.sealer == nil || kind == nil || !kind.Sensitive {
		return plain, nil
	}
	visible, err := clearPart(plain)
	if err != nil {
		return nil, err
	}
	sealed, err := s.sealer.Seal(plain, additionalData(key, visible))
	if err != nil {
		return nil, fmt.Errorf("store: %s cannot be encrypted: %w", key, err)
	}
	value := make([]byte, 0, len(sealedTag)+protowire.SizeBytes(len(sealed))+len(visible))
	value = protowire.AppendBytes(append(value, sealedTag...), sealed)
	return append(value, visible...), nil
}

// inFlight counts the proposals of sealed values, in rounds: who waits for those of the past does not hold up new ones.
type inFlight struct {
	mu    sync.Mutex
	round *sync.WaitGroup // of the proposals that begin now
}

func newInFlight() *inFlight { return &inFlight{round: new(sync.WaitGroup)} }

// begin counts a proposal until done is called.
func (f *inFlight) begin() (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round.Add(1)
	return f.round.Done
}

// past begins a new round and returns what is closed when no proposal of the earlier ones is under way any more.
func (f *inFlight) past() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	earlier, next := f.round, new(sync.WaitGroup)
	next.Add(1) // a round is not over before the earlier ones are
	f.round = next
	over := make(chan struct{})
	go func() { // ends with the proposals, which are bounded in time
		earlier.Wait()
		next.Done()
		close(over)
	}()
	return over
}

// Settle returns when no proposal is under way any more whose value was sealed before the call. Those whose outcome was uncertain
// may still be in the log.
func (s *Store) Settle(ctx context.Context) error {
	select {
	case <-s.sealing.past():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("store: proposals are under way: %w", ctx.Err())
	}
}

// Plain returns the object's bytes of an item. They are the item's own when it is not sealed: nobody may change them.
func (s *Store) Plain(item Item) ([]byte, error) {
	sealed, visible, ok := splitSealed(item.Value)
	if !ok {
		return item.Value, nil
	}
	if s.sealer == nil {
		return nil, fmt.Errorf("store: %s: %w: it has no keys", item.Key, ErrSealed)
	}
	plain, err := s.sealer.Open(sealed, additionalData(item.Key, visible))
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w: %w", item.Key, ErrSealed, err)
	}
	return plain, nil
}

// CheckSeal reports whether an item should be written anew, as it is sealed with an older key or not at all though its kind
// is sensitive. The error is ErrSealed (wrapped) when this server cannot open it.
func (s *Store) CheckSeal(item Item) (stale bool, err error) {
	sealed, ok := item.Sealed()
	kind := s.kinds[item.Key.Resource]
	switch {
	case !ok:
		return s.sealer != nil && kind != nil && kind.Sensitive, nil
	case s.sealer == nil:
		return false, fmt.Errorf("store: %s: %w: it has no keys", item.Key, ErrSealed)
	}
	if stale, err = s.sealer.Check(sealed); err != nil {
		return false, fmt.Errorf("store: %s: %w: %w", item.Key, ErrSealed, err)
	}
	return stale, nil
}

// Decode makes an object of an item, as the caller's own.
func (s *Store) Decode(item Item) (api.Object, error) {
	kind := s.Kind(item.Key.Resource)
	if kind == nil {
		return nil, fmt.Errorf("store: %s is of an unknown kind", item.Key)
	}
	plain, err := s.Plain(item)
	if err != nil {
		return nil, err
	}
	return api.Decode(kind, plain, item.Revision)
}

func additionalData(key Key, visible []byte) []byte {
	return append(append([]byte(key.String()), 0), visible...)
}

// clearPart is the metadata of an object that stays readable: who it is, what owns it and how it ends. Annotations may hold
// all of it once more (kubectl apply does that), so they do not.
func clearPart(plain []byte) ([]byte, error) {
	var object metav1.PartialObjectMetadata
	if err := object.Unmarshal(plain); err != nil {
		return nil, fmt.Errorf("store: read the metadata: %w", err)
	}
	visible := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: object.Name, Namespace: object.Namespace, UID: object.UID,
		CreationTimestamp: object.CreationTimestamp,
		DeletionTimestamp: object.DeletionTimestamp, DeletionGracePeriodSeconds: object.DeletionGracePeriodSeconds,
		OwnerReferences: object.OwnerReferences, Finalizers: object.Finalizers,
	}}
	return visible.Marshal()
}
