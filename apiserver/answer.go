package apiserver

import (
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// answer does what a request for a resource asks. It writes nothing before it can no longer fail, so that a request may be
// tried again after an error.
func (s *Server) answer(w http.ResponseWriter, req *request) error {
	req.warnings = nil
	if v := custom.Of(req.kind); v != nil && v.Deprecated != "" {
		req.warn(v.Deprecated)
	}
	switch {
	case req.isReview():
		return s.serveReview(w, req)
	case req.isUsage():
		return s.serveUsage(w, req)
	case req.sub != "":
		return s.serveSubresource(w, req)
	case !slices.Contains(req.kind.Verbs, req.verb), req.name == "" && (req.verb == "update" || req.verb == "patch"):
		return errMethod(req)
	}
	switch req.verb {
	case "get":
		return s.serveGet(w, req)
	case "list":
		return s.serveList(w, req)
	case "watch":
		return s.serveWatch(w, req)
	case "create":
		return s.serveCreate(w, req)
	case "update":
		return s.serveUpdate(w, req, "")
	case "patch":
		return s.servePatch(w, req, "")
	case "delete":
		return s.serveDelete(w, req)
	case "deletecollection":
		return s.serveDeleteCollection(w, req)
	}
	return errMethod(req)
}

// serveSubresource answers for the part of an object that a path names.
func (s *Server) serveSubresource(w http.ResponseWriter, req *request) error {
	if !req.kind.HasSubresource(req.sub) || req.name == "" {
		return errNotFound()
	}
	switch {
	case req.sub == "proxy":
		return s.serveProxy(w, req)
	case req.isStream():
		return s.serveStream(w, req)
	case req.sub == "scale":
		return s.serveScale(w, req)
	case req.sub == "binding" && req.verb == "create":
		return s.serveBinding(w, req)
	case req.sub == "eviction" && req.verb == "create":
		return s.serveEviction(w, req)
	case req.sub == "token" && req.verb == "create":
		return s.serveToken(w, req)
	case req.sub == "finalize" && req.verb == "update":
		return s.serveFinalize(w, req)
	case !req.isPart():
		return errMethod(req)
	case req.verb == "get":
		return s.serveGet(w, req)
	case req.verb == "update":
		return s.serveUpdate(w, req, req.sub)
	case req.verb == "patch":
		return s.servePatch(w, req, req.sub)
	}
	return errMethod(req)
}

// writeShaped answers with one object in the form that was asked for.
func (s *Server) writeShaped(w http.ResponseWriter, req *request, code int, obj api.Object) error {
	out, err := req.negotiate()
	if err != nil {
		return err
	}
	shaped, err := s.shape(req, out, req.kind, obj, true)
	if err != nil {
		return err
	}
	return s.writeObject(w, req, code, out, shaped)
}

// writeSuccess answers that a thing is done.
func (s *Server) writeSuccess(w http.ResponseWriter, req *request, code int, details *metav1.StatusDetails) error {
	out, err := negotiate(req.Request)
	if err != nil {
		return err
	}
	out.as = ""
	status := &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess, Code: int32(code), Details: details,
	}
	if details != nil {
		status.Code = 0 // upstream's says what was deleted, and no code
	}
	return s.writeObject(w, req, code, out, status)
}
