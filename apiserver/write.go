package apiserver

import (
	"net/http"
	"net/url"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// invalidOptions makes the error of options that do not validate.
func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

// storeOptions are the options of a write as the store takes them.
func (req *request) storeOptions(dryRun []string) []store.Option {
	opts := []store.Option{store.As(req.kind), store.Hear(req)}
	if len(dryRun) > 0 {
		opts = append(opts, store.DryRun)
	}
	return opts
}

// decodeObject reads an object of the request's kind and brings it into the version that is stored.
func (s *Server) decodeObject(req *request) (api.Object, error) {
	obj := req.kind.New()
	if err := s.decode(req, req.kind.GVK, obj); err != nil {
		return nil, err
	}
	singleOwners(req, obj, whenSent)
	return toStored(req.kind, obj)
}

// identify writes into a new object who asked for it, if its kind wants to know.
func (req *request) identify(obj api.Object) {
	if req.kind.Identify == nil {
		return
	}
	asked := authenticationv1.UserInfo{Username: req.user.Name, UID: req.user.UID, Groups: req.user.Groups}
	for key, values := range req.user.Extra {
		if asked.Extra == nil {
			asked.Extra = map[string]authenticationv1.ExtraValue{}
		}
		asked.Extra[key] = values
	}
	req.kind.Identify(obj, asked)
}

func toStored(kind *api.Kind, obj api.Object) (api.Object, error) {
	if kind.Stored == nil {
		return obj, nil
	}
	stored, err := kind.ToStored(obj)
	if err != nil {
		return nil, errBadRequest("%v", err)
	}
	return stored, nil
}

func (s *Server) serveCreate(w http.ResponseWriter, req *request) error {
	if req.name != "" || req.kind.Namespaced && req.namespace == "" {
		return errMethod(req)
	}
	var opts metav1.CreateOptions
	if err := convert(metav1.Convert_url_Values_To_v1_CreateOptions, req.query, &opts); err != nil {
		return err
	}
	if err := invalidOptions("CreateOptions", validation.ValidateCreateOptions(&opts)); err != nil {
		return err
	}
	if err := mayCreate(req); err != nil {
		return err
	}
	obj, err := s.decodeObject(req)
	if err != nil {
		return err
	}
	if err := placeIn(req, obj); err != nil {
		return err
	}
	req.identify(obj)
	track, err := s.track(req, "", opts.FieldManager)
	if err != nil {
		return err
	}
	created, err := s.cfg.Client.Create(req.Context(), obj, append(req.storeOptions(opts.DryRun), track)...)
	if err != nil {
		return err
	}
	s.warnAbout(req, created, nil)
	return s.writeShaped(w, req, http.StatusCreated, created)
}

func (s *Server) serveUpdate(w http.ResponseWriter, req *request, sub string) error {
	var opts metav1.UpdateOptions
	if err := convert(metav1.Convert_url_Values_To_v1_UpdateOptions, req.query, &opts); err != nil {
		return err
	}
	if err := invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(&opts)); err != nil {
		return err
	}
	obj, err := s.decodeObject(req)
	if err != nil {
		return err
	}
	if err := samePlace(req, obj); err != nil {
		return err
	}
	older, err := s.read(req, "0")
	created := apierrors.IsNotFound(err)
	if err != nil && !created {
		return err
	}
	track, err := s.track(req, sub, opts.FieldManager)
	if err != nil {
		return err
	}
	updated, err := s.cfg.Client.UpdateSub(req.Context(), sub, obj, append(req.storeOptions(opts.DryRun), track)...)
	if err != nil {
		return err
	}
	if sub == "" {
		s.warnAbout(req, updated, older)
	}
	code := http.StatusOK
	if created {
		code = http.StatusCreated
	}
	return s.writeShaped(w, req, code, updated)
}

// convert reads options from a query.
func convert[T any](f func(*url.Values, *T, conversionScope) error, query url.Values, into *T) error {
	if err := f(&query, into, nil); err != nil {
		return errBadRequest("%v", err)
	}
	return nil
}

// warnAbout adds what the kind has to say of a written object.
func (s *Server) warnAbout(req *request, newer, older api.Object) {
	if req.kind.Warn == nil {
		return
	}
	req.warn(req.kind.Warn(newer, older)...)
}

// placeIn gives an object the namespace of the request; one that names another is refused.
func placeIn(req *request, obj api.Object) error {
	switch {
	case !req.kind.Namespaced && obj.GetNamespace() != "":
		obj.SetNamespace("") // upstream takes it away without a word
	case obj.GetNamespace() == "":
		obj.SetNamespace(req.namespace)
	case obj.GetNamespace() != req.namespace:
		return errBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// samePlace also refuses an object with another name than the request's.
func samePlace(req *request, obj api.Object) error {
	if obj.GetName() == "" {
		return errBadRequest("the name of the object (%s based on URL) was undeterminable: name must be provided", req.name)
	}
	if obj.GetName() != req.name {
		return errBadRequest("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), req.name)
	}
	return placeIn(req, obj)
}
