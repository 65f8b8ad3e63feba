package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/apiserver/access"
)

// serveReview answers a client's question about what it or somebody else may do.
func (s *Server) serveReview(w http.ResponseWriter, req *request) error {
	if req.sub != "" {
		return errNotFound()
	}
	if req.verb != "create" || req.name != "" {
		return errMethod(req)
	}
	out, err := negotiateWhole(req.Request)
	if err != nil {
		return err
	}
	kind := req.review.GVK
	review := req.review.New()
	if err := s.decode(req, kind, review); err != nil {
		return err
	}
	if local, ok := review.(*authorizationv1.LocalSubjectAccessReview); ok && local.Namespace == "" {
		local.Namespace = req.namespace
	}
	if errs := validateReview(review); len(errs) > 0 {
		return apierrors.NewInvalid(kind.GroupKind(), "", errs)
	}
	if err := s.review(req, review); err != nil {
		return err
	}
	review.GetObjectKind().SetGroupVersionKind(kind)
	return s.writeObject(w, req, http.StatusCreated, out, review)
}

// review fills in the answer.
func (s *Server) review(req *request, review runtime.Object) error {
	self := &req.user.User
	switch r := review.(type) {
	case *authenticationv1.SelfSubjectReview:
		r.Status.UserInfo = userInfo(self)
	case *authenticationv1.TokenReview:
		if r.Spec.Token == "" {
			return errBadRequest("token is required for TokenReview in authentication")
		}
		r.Status = s.reviewToken(req.Context(), &r.Spec)
	case *authorizationv1.SelfSubjectAccessReview:
		r.Status = s.judge(req.Context(), self, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	case *authorizationv1.SubjectAccessReview:
		r.Status = s.judge(req.Context(), specUser(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	case *authorizationv1.LocalSubjectAccessReview:
		if r.Namespace != req.namespace {
			return errBadRequest("spec.resourceAttributes.namespace must match namespace: %v", req.namespace)
		}
		r.Status = s.judge(req.Context(), specUser(&r.Spec), r.Spec.ResourceAttributes, nil)
	case *authorizationv1.SelfSubjectRulesReview:
		if r.Spec.Namespace == "" {
			return errBadRequest("no namespace on request")
		}
		r.Status = s.rulesOf(self, r.Spec.Namespace)
	default:
		return apierrors.NewInternalError(fmt.Errorf("no answer to a %T", review))
	}
	return nil
}

func userInfo(u *access.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for key, values := range u.Extra {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[key] = values
	}
	return info
}

func specUser(spec *authorizationv1.SubjectAccessReviewSpec) *access.User {
	u := &access.User{Name: spec.User, UID: spec.UID, Groups: spec.Groups}
	for key, values := range spec.Extra {
		if u.Extra == nil {
			u.Extra = map[string][]string{}
		}
		u.Extra[key] = values
	}
	return u
}

// judge answers as authorize would for a request.
func (s *Server) judge(
	ctx context.Context, u *access.User, r *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes,
) authorizationv1.SubjectAccessReviewStatus {
	a := access.Attributes{User: u}
	if path != nil {
		a.Verb, a.Path = path.Verb, path.Path
	} else {
		a.Verb, a.Group, a.Version, a.Resource, a.Sub, a.Namespace, a.Name = r.Verb, r.Group, r.Version, r.Resource, r.Subresource, r.Namespace, r.Name
		a.Fields = selectedFields(r.FieldSelector)
	}
	var status authorizationv1.SubjectAccessReviewStatus
	status.Allowed, status.Reason = s.cfg.Authorizer.Authorize(ctx, &a)
	return status
}

// selectedFields is a review's field selector as a request's query would have it. What has no such form is left out, which asks
// for more than was meant.
func selectedFields(f *authorizationv1.FieldSelectorAttributes) string {
	if f == nil {
		return ""
	}
	if f.RawSelector != "" {
		return f.RawSelector
	}
	var terms []string
	for _, r := range f.Requirements {
		switch {
		case len(r.Values) != 1:
		case r.Operator == metav1.FieldSelectorOpIn:
			terms = append(terms, r.Key+"="+r.Values[0])
		case r.Operator == metav1.FieldSelectorOpNotIn:
			terms = append(terms, r.Key+"!="+r.Values[0])
		}
	}
	return strings.Join(terms, ",")
}

// rulesOf lists what a user may do in a namespace.
func (s *Server) rulesOf(u *access.User, namespace string) authorizationv1.SubjectRulesReviewStatus {
	status := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	rules, err := s.cfg.Authorizer.roles.RulesFor(u, namespace)
	for _, rule := range rules {
		if len(rule.Resources) > 0 {
			status.ResourceRules = append(status.ResourceRules, authorizationv1.ResourceRule{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			status.NonResourceRules = append(status.NonResourceRules, authorizationv1.NonResourceRule{
				Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs,
			})
		}
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}
