package wire

import (
	"context"
	"errors"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/raft"
	"github.com/shoal-edge/shoal/store"
)

// Restored is the answer to a restore.
type Restored struct {
	Snapshot raft.SnapshotInfo `json:"snapshot"`
	// Revision and Cluster are what the snapshot's objects have become.
	Revision uint64         `json:"revision"`
	Cluster  raft.ClusterID `json:"cluster"`
	// Unreadable are Secrets of the snapshot that were encrypted with keys that the cluster does not have.
	Unreadable int `json:"unreadable,omitempty"`
}

// snapshots is the consensus as the API server saves and restores it.
type snapshots struct{ s *Server }

func (s snapshots) Open(ctx context.Context) (io.ReadCloser, int64, error) {
	return s.s.node.OpenSnapshot(ctx)
}

func (s snapshots) Restore(ctx context.Context, from io.Reader, size int64) (any, error) {
	if !s.s.rotating.TryLock() {
		return nil, errRotating()
	}
	defer s.s.rotating.Unlock()
	info, revision, err := s.s.node.RestoreSnapshot(ctx, from, size)
	switch {
	case err == nil:
		wake(s.s.keys.changed) // what came may be plain, or encrypted with old keys
		return Restored{info, revision, s.s.node.Cluster(), s.s.secretsStatus().Unreadable}, nil
	case errors.Is(err, raft.ErrSnapshotData):
		return nil, apierrors.NewBadRequest(err.Error())
	case errors.Is(err, raft.ErrNoSpace):
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: metav1.StatusReasonInternalError, Message: err.Error(),
		}}
	case errors.Is(err, raft.ErrRestoreBusy):
		return nil, apierrors.NewTooManyRequests(err.Error(), 5)
	case errors.Is(err, raft.ErrRestoreLost), errors.Is(err, store.ErrNotLeader):
		return nil, apierrors.NewServiceUnavailable(err.Error())
	case errors.Is(err, store.ErrUncertain):
		uncertain := apierrors.NewServerTimeout(schema.GroupResource{Resource: "snapshots"}, "restore", 1)
		uncertain.ErrStatus.Message = "the snapshot may have been restored or not, look before you try again: " + err.Error()
		return nil, uncertain
	}
	return nil, err
}
