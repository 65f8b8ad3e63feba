package apiserver

import (
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/apiserver/reviews"
)

// serveReview answers a client's questions about itself.
func (s *Server) serveReview(w http.ResponseWriter, req *request) error {
	gvr := req.gv.WithResource(req.resource)
	if req.verb != "create" || req.name != "" || req.namespace != "" {
		return errMethod(req)
	}
	out, err := negotiate(req.Request)
	if err != nil {
		return err
	}
	out.as = ""
	kind := reviews.Kind(gvr)
	var answer runtime.Object
	if gvr == reviews.SelfSubject {
		review := &authenticationv1.SelfSubjectReview{}
		if err := s.decode(req, kind, review); err != nil {
			return err
		}
		review.Status.UserInfo = authenticationv1.UserInfo{Username: req.user.name, Groups: req.user.groups}
		answer = review
	} else {
		review := &authorizationv1.SelfSubjectAccessReview{}
		if err := s.decode(req, kind, review); err != nil {
			return err
		}
		review.Status.Allowed = mayDo(req.user, &review.Spec)
		answer = review
	}
	answer.GetObjectKind().SetGroupVersionKind(kind)
	return s.writeObject(w, req, http.StatusCreated, out, answer)
}

// mayDo asks the same question that authorize answers for a request.
func mayDo(u user, spec *authorizationv1.SelfSubjectAccessReviewSpec) bool {
	switch {
	case u.all():
		return true
	case spec.NonResourceAttributes != nil:
		return spec.NonResourceAttributes.Verb == "get" && openToAll(spec.NonResourceAttributes.Path)
	}
	return false
}
