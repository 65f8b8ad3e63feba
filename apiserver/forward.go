package apiserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// notLeaderHeader marks an answer by which a server says that it cannot do what was passed on to it, and did nothing.
const notLeaderHeader = "X-Shoal-Not-Leader"

// leaderPoll is how often a waiting request looks for a leader. Nothing looks when no request waits.
const leaderPoll = 20 * time.Millisecond

// untilLed calls try until it succeeds or fails for another reason than the want of a leader.
func (s *Server) untilLed(ctx context.Context, wait time.Duration, try func() error) error {
	deadline := time.Now().Add(wait)
	for {
		err := try()
		if !isUnavailable(err) || !time.Now().Before(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(leaderPoll):
		}
	}
}

// serveResource answers a request for a resource here, or at the leader when only the leader can.
func (s *Server) serveResource(w *recorder, req *request) error {
	if err := s.findCustom(req); err != nil {
		return err
	}
	if req.kind == nil && !req.isReview() && !req.isUsage() {
		return errNotFound()
	}
	if err := s.readBody(w, req); err != nil {
		return err
	}
	wait := s.cfg.LeaderWait
	if req.user.forwarded {
		wait = 0 // the first server waits
	}
	if !req.needsLeader() {
		return s.answer(w, req)
	}
	return s.untilLed(req.Context(), wait, func() error {
		switch {
		case s.cfg.Consensus.IsLeader():
			return s.answer(w, req)
		case req.user.forwarded:
			return errNoLeader()
		default:
			return s.forward(w, req)
		}
	})
}

// forward passes a request on to the leader, with the user's name, and its answer back. Errors are those of the way there:
// as long as the leader has not been reached, nothing has happened.
func (s *Server) forward(w *recorder, req *request) error {
	return s.forwardThrough(s.cfg.Forward, w, req)
}

func (s *Server) forwardThrough(transport http.RoundTripper, w *recorder, req *request) error {
	_, addr, ok := s.cfg.Consensus.Leader()
	if !ok || transport == nil {
		return errNoLeader()
	}
	var failure error
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "https", addr, addr
			setRemoteUser(p.Out.Header, &req.user.User)
			if req.body != nil {
				p.Out.Body, p.Out.ContentLength = io.NopCloser(bytes.NewReader(req.body)), int64(len(req.body))
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if r.Header.Get(notLeaderHeader) != "" {
				return errNoLeader()
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failure = err },
		ErrorLog:     nil,
	}
	proxy.ServeHTTP(w, req.Request)
	switch {
	case failure == nil:
		return nil
	case isUnavailable(failure), neverSent(failure):
		return errNoLeader()
	case req.Method == http.MethodGet || req.Method == http.MethodHead:
		return errNoLeader()
	default:
		s.cfg.Logger.Debug("the leader was lost during a request", "path", req.URL.Path, "error", failure)
		return apierrors.NewServerTimeout(req.groupResource(), req.verb, 1)
	}
}

// neverSent reports whether a request failed before a byte of it left: then doing it again is safe.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
