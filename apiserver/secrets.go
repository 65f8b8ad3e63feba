package apiserver

import (
	"context"
	"encoding/json"
	"net/http"
)

// SecretsPath is where administrators look at the keys of Secrets (GET) and change them (POST, with the query action=rotate or
// action=drop-old).
const SecretsPath = "/shoal/v1/secrets/keys"

// SecretsKeys are the keys under which Secrets are stored. Its functions are called on the leader only and return what is told as
// JSON. Errors are API errors.
type SecretsKeys interface {
	Status(ctx context.Context) (any, error)
	Rotate(ctx context.Context) (any, error)
	DropOld(ctx context.Context) (any, error)
}

func (s *Server) serveSecrets(w *recorder, req *request) error {
	if s.cfg.SecretsKeys == nil || !req.user.in(groupMasters) {
		return errNotFound()
	}
	act := s.cfg.SecretsKeys.Status
	switch action := req.query.Get("action"); {
	case req.Method == http.MethodGet:
	case req.Method != http.MethodPost:
		return errMethod(req)
	case action == "rotate":
		act = s.cfg.SecretsKeys.Rotate
	case action == "drop-old":
		act = s.cfg.SecretsKeys.DropOld
	default:
		return errBadRequest("unknown action %q; there is rotate and drop-old", action)
	}
	wait := s.cfg.LeaderWait
	if req.user.forwarded {
		wait = 0 // the first server waits
	}
	return s.untilLed(req.Context(), wait, func() error {
		switch {
		case s.cfg.Consensus.IsLeader():
			told, err := act(req.Context())
			if err != nil {
				return err
			}
			w.Header().Set("Content-Type", mediaJSON)
			return json.NewEncoder(w).Encode(told)
		case req.user.forwarded:
			return errNoLeader()
		default:
			return s.forward(w, req)
		}
	})
}
