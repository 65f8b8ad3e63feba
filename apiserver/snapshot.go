package apiserver

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// SnapshotPath is where administrators take a snapshot of the whole state (GET) or restore one (POST).
const SnapshotPath = "/shoal/v1/snapshot"

// chunkTimeout bounds the wait for the other end of a snapshot's transfer to take or give anything.
const chunkTimeout = 30 * time.Second

// Snapshots takes and restores snapshots of the durable state. Errors are API errors.
type Snapshots interface {
	// Open returns a snapshot of all that this server has applied, and its size.
	Open(ctx context.Context) (io.ReadCloser, int64, error)
	// Restore makes a snapshot of the given size the state of the cluster, and returns a summary for JSON. It is called on the
	// leader only.
	Restore(ctx context.Context, from io.Reader, size int64) (any, error)
}

// serveSnapshot has no time limit as a whole, but one for each chunk.
func (s *Server) serveSnapshot(w *recorder, req *request) error {
	switch {
	case s.cfg.Snapshots == nil:
		return errNotFound()
	case req.Method == http.MethodGet:
		return s.saveSnapshot(w, req)
	case req.Method == http.MethodPost:
		return s.restoreSnapshot(w, req)
	}
	return errMethod(req)
}

// saveSnapshot sends what every write acknowledged before the request is in. Any server can.
func (s *Server) saveSnapshot(w *recorder, req *request) error {
	if !s.transfers.TryLock() {
		return apierrors.NewTooManyRequests("a snapshot is being taken or restored already", 5)
	}
	defer s.transfers.Unlock()
	if err := s.catchUp(req.Context()); err != nil {
		return err
	}
	from, size, err := s.cfg.Snapshots.Open(req.Context())
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if _, err := io.Copy(chunkWriter{w}, from); err != nil {
		s.cfg.Logger.Warn("a snapshot was not sent to its end", "error", err)
		panic(http.ErrAbortHandler) // cutting the answer off tells the client
	}
	return nil
}

// restoreSnapshot passes the body on to the leader, once: it cannot be sent twice.
func (s *Server) restoreSnapshot(w *recorder, req *request) error {
	if req.ContentLength < 0 {
		return apierrors.NewGenericServerResponse(http.StatusLengthRequired, req.verb, req.groupResource(), "", "", 0, true)
	}
	err := s.untilLed(req.Context(), s.cfg.LeaderWait, func() error {
		if _, _, led := s.cfg.Consensus.Leader(); !led && !s.cfg.Consensus.IsLeader() {
			return errNoLeader()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !s.cfg.Consensus.IsLeader() {
		if req.user.forwarded {
			return errNoLeader()
		}
		return s.forwardThrough(s.cfg.ForwardSlow, w, req)
	}
	if !s.transfers.TryLock() {
		return apierrors.NewTooManyRequests("a snapshot is being taken or restored already", 5)
	}
	defer s.transfers.Unlock()
	summary, err := s.cfg.Snapshots.Restore(req.Context(), chunkReader{req.Body, http.NewResponseController(w.ResponseWriter)}, req.ContentLength)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaJSON)
	return json.NewEncoder(w).Encode(summary)
}

// chunkWriter gives each chunk a time of its own.
type chunkWriter struct{ *recorder }

func (w chunkWriter) Write(p []byte) (int, error) {
	w.limit(time.Now().Add(chunkTimeout))
	return w.recorder.Write(p)
}

// chunkReader does the same for what comes in.
type chunkReader struct {
	io.Reader
	control *http.ResponseController
}

func (r chunkReader) Read(p []byte) (int, error) {
	_ = r.control.SetReadDeadline(time.Now().Add(chunkTimeout)) // a recorder in a test has no deadlines
	n, err := r.Reader.Read(p)
	if err != nil {
		_ = r.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
