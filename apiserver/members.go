package apiserver

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

// MembersPath is where administrators look at the members of the control plane (GET), and take out one that is gone for good
// (DELETE, with its name behind the path).
const MembersPath = "/shoal/v1/members"

// Members are the members of the control plane. Its functions are called on the leader only. Errors are API errors.
type Members interface {
	// List returns the members for JSON.
	List(ctx context.Context) (any, error)
	Remove(ctx context.Context, name string) error
}

// isMembers reports whether a path is MembersPath or below.
func isMembers(path string) bool {
	return path == MembersPath || strings.HasPrefix(path, MembersPath+"/")
}

func (s *Server) serveMembers(w *recorder, req *request) error {
	name := strings.TrimPrefix(strings.TrimPrefix(req.URL.Path, MembersPath), "/")
	if s.cfg.Members == nil {
		return errNotFound()
	}
	if name == "" && req.Method != http.MethodGet || name != "" && req.Method != http.MethodDelete {
		return errMethod(req)
	}
	wait := s.cfg.LeaderWait
	if req.user.forwarded {
		wait = 0 // the first server waits
	}
	return s.untilLed(req.Context(), wait, func() error {
		switch {
		case !s.cfg.Consensus.IsLeader() && req.user.forwarded:
			return errNoLeader()
		case !s.cfg.Consensus.IsLeader():
			return s.forward(w, req)
		case name != "":
			if err := s.cfg.Members.Remove(req.Context(), name); err != nil {
				return err
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		list, err := s.cfg.Members.List(req.Context())
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", mediaJSON)
		return json.NewEncoder(w).Encode(list)
	})
}
