package apiserver

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
)

func (s *Server) serveGet(w http.ResponseWriter, req *request) error {
	obj, err := s.read(req, req.query.Get("resourceVersion"))
	if err != nil {
		return err
	}
	return s.writeShaped(w, req, http.StatusOK, obj)
}

// read returns the object that the request names.
func (s *Server) read(req *request, resourceVersion string) (api.Object, error) {
	from, err := s.cfg.Client.ReaderFor(req.kind, req.namespace)
	if err != nil {
		return nil, err
	}
	if _, err := s.atRevision(req.Context(), from, resourceVersion); err != nil {
		return nil, err
	}
	item, ok := from.Get(req.key())
	if !ok {
		return nil, apierrors.NewNotFound(req.groupResource(), req.name)
	}
	obj, err := from.Decode(item)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return obj, nil
}
