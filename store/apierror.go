package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// errStale is upstream's wording, which people and programs look for.
var errStale = errors.New("the object has been modified; please apply your changes to the latest version and try again")

func staleError(t *target) error { return apierrors.NewConflict(t.resource(), t.key.Name, errStale) }

func uidError(t *target, want, have types.UID) error {
	return apierrors.NewConflict(t.resource(), t.key.Name,
		fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", want, have)) //nolint:staticcheck // upstream's wording
}

// proposeError makes an API error of a failed proposal. A *ConflictError is the caller's to judge.
func proposeError(t *target, verb string, err error) error {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return err
	}
	switch {
	case errors.Is(err, ErrNotLeader):
		return apierrors.NewServiceUnavailable(fmt.Sprintf("the control plane has no leader here now, try again: %v", err))
	case errors.Is(err, ErrFull):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: "InsufficientStorage",
			Message: fmt.Sprintf("%s %s: %v", verb, t.key, err),
		}}
	case errors.Is(err, ErrUncertain):
		return apierrors.NewServerTimeout(t.resource(), verb, 1)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return apierrors.NewTimeoutError(fmt.Sprintf("%s %s: request did not complete within the allotted time", verb, t.key), 1)
	default:
		return apierrors.NewInternalError(err)
	}
}

func isConflict(err error) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict)
}

// conflictOn reports whether it was the object itself that another write changed.
func conflictOn(err error, key Key) bool {
	var conflict *ConflictError
	return errors.As(err, &conflict) && conflict.Key == key
}
