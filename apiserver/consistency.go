package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/store"
)

// readIndexPath is where followers ask the leader how far they must have read to miss no acknowledged write.
const readIndexPath = "/shoal/v1/readindex"

// revisionWait is how long a read waits for a revision that this server has not reached yet.
const revisionWait = 3 * time.Second

func (s *Server) serveReadIndex(w http.ResponseWriter, req *request) error {
	if !req.user.in(groupServers) {
		return errNotFound()
	}
	index, err := s.cfg.Consensus.ReadIndex(req.Context())
	if err != nil {
		return errNoLeader()
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = fmt.Fprint(w, index) // the client has gone: there is nobody to tell
	return nil
}

// catchUp makes the following reads linearizable: it waits until this server's memory has every write that was
// acknowledged before now.
func (s *Server) catchUp(ctx context.Context) error {
	index, err := s.readIndex(ctx)
	if err != nil {
		return err
	}
	if err := s.cfg.Durable.Wait(ctx, index); err != nil {
		return apierrors.NewTimeoutError("the server did not catch up with the log in time", 1)
	}
	return nil
}

// readIndex asks whoever leads, and waits for somebody to.
func (s *Server) readIndex(ctx context.Context) (uint64, error) {
	var index uint64
	err := s.untilLed(ctx, s.cfg.LeaderWait, func() error {
		var err error
		if s.cfg.Consensus.IsLeader() {
			if index, err = s.cfg.Consensus.ReadIndex(ctx); err != nil {
				return errNoLeader()
			}
			return nil
		}
		index, err = s.askLeader(ctx)
		return err
	})
	return index, err
}

func (s *Server) askLeader(ctx context.Context) (uint64, error) {
	_, addr, ok := s.cfg.Consensus.Leader()
	if !ok || s.cfg.Forward == nil {
		return 0, errNoLeader()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+readIndexPath, nil)
	if err != nil {
		return 0, apierrors.NewInternalError(err)
	}
	answer, err := s.cfg.Forward.RoundTrip(r)
	if err != nil {
		return 0, errNoLeader()
	}
	defer func() { _ = answer.Body.Close() }()
	var index uint64
	if _, err := fmt.Fscan(answer.Body, &index); err != nil || answer.StatusCode != http.StatusOK {
		return 0, errNoLeader()
	}
	return index, nil
}

// atRevision prepares a store for a read at the asked resourceVersion: empty is everything acknowledged, 0 is whatever is in
// memory, and any other is at least that.
func (s *Server) atRevision(ctx context.Context, from *store.Store, asked string) (uint64, error) {
	if asked == "" {
		return 0, s.catchUp(ctx)
	}
	revision, err := strconv.ParseUint(asked, 10, 64)
	if err != nil {
		return 0, errBadRequest("invalid resource version: %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, revisionWait)
	defer cancel()
	if err := from.Wait(ctx, revision); err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return 0, errTooLarge(revision, from.Revision())
		}
		return 0, err
	}
	return revision, nil
}

// errTooLarge tells that a revision is not there yet; clients know it by its cause.
func errTooLarge(asked, have uint64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, have), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}
