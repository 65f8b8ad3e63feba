package apiserver

import (
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/store"
)

func (s *Server) serveDelete(w http.ResponseWriter, req *request) error {
	opts, err := s.deleteOptions(req)
	if err != nil {
		return err
	}
	obj, err := s.cfg.Client.Delete(req.Context(), req.key(), opts, store.Hear(req))
	if err != nil {
		return err
	}
	item, there := s.cfg.Client.Reader().Get(req.key())
	stays := there && obj.GetResourceVersion() == store.FormatRevision(item.Revision) && len(opts.DryRun) == 0
	if stays || returnsDeleted(req.kind) {
		code := http.StatusOK
		if orphan := opts.OrphanDependents; stays && orphan != nil && !*orphan { //nolint:staticcheck // old clients still send it
			code = http.StatusAccepted
		}
		return s.writeShaped(w, req, code, obj)
	}
	return s.writeSuccess(w, req, http.StatusOK, &metav1.StatusDetails{
		Name: req.name, Group: req.gv.Group, Kind: req.resource, UID: obj.GetUID(),
	})
}

var deletedShown = []string{
	"namespaces", "persistentvolumeclaims", "persistentvolumes", "pods", "podtemplates", "resourcequotas", "serviceaccounts", "services",
	"csidrivers.storage.k8s.io", "csinodes.storage.k8s.io", "storageclasses.storage.k8s.io", "volumeattachments.storage.k8s.io",
	"volumeattributesclasses.storage.k8s.io",
}

// returnsDeleted tells the kinds of which upstream returns the object itself, even when it has gone.
func returnsDeleted(k *api.Kind) bool {
	return slices.Contains(deletedShown, k.GroupResource())
}

// deleteOptions come in the body or, without one, in the query.
func (s *Server) deleteOptions(req *request) (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	if len(req.body) == 0 {
		if err := convert(metav1.Convert_url_Values_To_v1_DeleteOptions, req.query, opts); err != nil {
			return nil, err
		}
	} else if custom.Of(req.kind) != nil {
		if err := customDeleteOptions(req, opts); err != nil {
			return nil, err
		}
	} else {
		decoder, err := s.formats.decoder(req.Header.Get("Content-Type"), false)
		if err != nil {
			return nil, err
		}
		want := req.gv.WithKind("DeleteOptions")
		obj, _, err := decoder.Decode(req.body, &want, opts)
		if err != nil {
			return nil, errBadRequest("%v", err)
		}
		if obj != opts {
			return nil, errBadRequest("decoded object cannot be converted to DeleteOptions")
		}
	}
	return opts, invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(opts))
}

// serveDeleteCollection deletes what a list with the same parameters shows, one object after another, and answers with it.
func (s *Server) serveDeleteCollection(w http.ResponseWriter, req *request) error {
	if req.kind.Namespaced && req.namespace == "" {
		return errMethod(req)
	}
	opts, err := s.deleteOptions(req)
	if err != nil {
		return err
	}
	out, err := req.negotiate()
	if err != nil {
		return err
	}
	sel, err := s.newSelector(req)
	if err != nil {
		return err
	}
	which, err := listOptions(req)
	if err != nil {
		return err
	}
	p, err := s.page(req, which, sel)
	if err != nil {
		return err
	}
	for _, item := range p.items {
		each := opts.DeepCopy() // the store may complete them
		if _, err := s.cfg.Client.Delete(req.Context(), item.Key, each, store.Hear(req)); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return s.writeList(w, req, out, p)
}
