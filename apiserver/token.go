package apiserver

import (
	"encoding/json"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/apiserver/tokens"
)

// Where others learn how to check the tokens of service accounts (OpenID Connect discovery).
const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/openid/v1/jwks"
)

// serveToken issues a token for a service account.
func (s *Server) serveToken(w http.ResponseWriter, req *request) error {
	if s.cfg.Tokens == nil {
		return errNotFound()
	}
	out, err := negotiate(req.Request)
	if err != nil {
		return err
	}
	out.as = ""
	kind := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
	wanted := &authenticationv1.TokenRequest{}
	if err := s.decode(req, kind, wanted); err != nil {
		return err
	}
	if err := s.catchUp(req.Context()); err != nil {
		return err
	}
	if node, ok := req.user.Node(); ok {
		if err := s.cfg.Authorizer.nodes.GuardToken(node, req.namespace, req.name, wanted); err != nil {
			return err
		}
	}
	wanted.SetGroupVersionKind(kind)
	if err := s.admitSent(req, wanted, req.query["dryRun"]); err != nil {
		return err
	}
	if err := s.cfg.Tokens.Issue(req.namespace, req.name, wanted); err != nil {
		return err
	}
	return s.writeObject(w, req, http.StatusCreated, out, wanted)
}

func (s *Server) serveOIDC(w http.ResponseWriter, req *request) error {
	if s.cfg.Tokens == nil {
		return errNotFound()
	}
	return writeCached(w, mediaJSON, tokens.Discover("https://"+req.Host+keysPath))
}

func (s *Server) serveKeys(w http.ResponseWriter, _ *request) error {
	if s.cfg.Tokens == nil {
		return errNotFound()
	}
	set, err := s.cfg.Tokens.KeySet()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return writeCached(w, "application/jwk-set+json", set)
}

func writeCached(w http.ResponseWriter, media string, answer any) error {
	data, err := json.Marshal(answer)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(data) // the client has gone: there is nobody to tell
	return nil
}
