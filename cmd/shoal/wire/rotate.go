package wire

import (
	"context"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/pki"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/seal"
)

// secretsKeys rotates the keys. Only the leader is asked.
type secretsKeys struct{ s *Server }

func (k secretsKeys) Status(context.Context) (any, error) { return k.s.secretsStatus(), nil }

// Rotate makes a new key, has every server take it, and only then encrypts with it. Encrypting the old values anew goes on in the
// background, and at the next leader should this one stop.
func (k secretsKeys) Rotate(ctx context.Context) (any, error) {
	s := k.s
	if !s.rotating.TryLock() {
		return nil, errRotating()
	}
	defer s.rotating.Unlock()
	var id seal.ID
	err := s.keys.change(func(ring seal.Ring) (seal.Ring, error) {
		var staged bool
		if id, staged = ring.Staged(); staged {
			return ring, nil // of an attempt that not all servers heard of
		}
		var err error
		ring, id, err = ring.Stage(pki.Now())
		return ring, err
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.exchangeAll(ctx); err != nil {
		return nil, conflict("every server must have the new key before it is used, and some do not answer: start them, or take them out of "+
			"the cluster, and try again. Nothing has changed for the Secrets. %v", err)
	}
	if err := s.keys.change(func(ring seal.Ring) (seal.Ring, error) { return ring.Activate(id) }); err != nil {
		return nil, err
	}
	s.o.Logger.Info("Secrets are encrypted with a new key", "key", id)
	if _, err := s.exchangeAll(ctx); err != nil { // they have the key, and may hear later that it is in use
		s.o.Logger.Warn("some servers do not know yet that the new key is in use", "error", err)
	}
	return s.secretsStatus(), nil
}

// DropOld takes away, on all servers, the keys that no Secret needs any more.
func (k secretsKeys) DropOld(ctx context.Context) (any, error) {
	s := k.s
	if !s.rotating.TryLock() {
		return nil, errRotating()
	}
	defer s.rotating.Unlock()
	// Every server that answers has the primary key and no proposal under way that was encrypted before it had. What is in the log
	// by then is in the store after one more transaction.
	if _, err := s.exchangeAll(ctx); err != nil {
		return nil, conflict("every server must drop the old keys, and some do not answer: %v", err)
	}
	primary, _ := s.keys.Ring().Primary()
	if err := s.durable.Settle(ctx); err != nil {
		return nil, apierrors.NewTimeoutError(err.Error(), 1)
	}
	if _, err := s.node.Propose(ctx, store.Txn{}); err != nil {
		return nil, apierrors.NewServiceUnavailable(err.Error())
	}
	if status := s.secretsStatus(); status.Pending+status.Unreadable > 0 {
		return nil, conflict("%d Secrets are not encrypted with the primary key yet, and %d cannot be read: the old keys stay", status.Pending, status.Unreadable)
	}
	var gone []seal.ID
	err := s.keys.change(func(ring seal.Ring) (seal.Ring, error) {
		if now, _ := ring.Primary(); now.ID != primary.ID { // of a rotation at another leader
			return ring, errRotating()
		}
		ring, gone = ring.DropOld()
		return ring, nil
	})
	if err != nil {
		return nil, err
	}
	if len(gone) > 0 {
		s.o.Logger.Info("old keys of Secrets are dropped", "keys", gone)
	}
	if _, err := s.exchangeAll(ctx); err != nil {
		return nil, conflict("some servers have not dropped the old keys yet; start them and try again. %v", err)
	}
	return s.secretsStatus(), nil
}

func errRotating() error { return conflict("another change of the keys, or a restore, is under way") }

func conflict(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonConflict, Message: fmt.Sprintf(format, args...),
	}}
}
