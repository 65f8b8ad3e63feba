// Package reviews owns the kinds that are asked but never stored: who am I, and may I or somebody else do this.
package reviews

import (
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Review is a question as a kind: it is created, and answered at once.
type Review struct {
	GVK        schema.GroupVersionKind
	Resource   string
	Namespaced bool
	New        func() runtime.Object
}

var all = sync.OnceValue(func() []Review {
	authentication, authorization := authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion
	return []Review{
		{
			GVK: authentication.WithKind("SelfSubjectReview"), Resource: "selfsubjectreviews",
			New: func() runtime.Object { return &authenticationv1.SelfSubjectReview{} },
		},
		{
			GVK: authentication.WithKind("TokenReview"), Resource: "tokenreviews",
			New: func() runtime.Object { return &authenticationv1.TokenReview{} },
		},
		{
			GVK: authorization.WithKind("LocalSubjectAccessReview"), Resource: "localsubjectaccessreviews", Namespaced: true,
			New: func() runtime.Object { return &authorizationv1.LocalSubjectAccessReview{} },
		},
		{
			GVK: authorization.WithKind("SelfSubjectAccessReview"), Resource: "selfsubjectaccessreviews",
			New: func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} },
		},
		{
			GVK: authorization.WithKind("SelfSubjectRulesReview"), Resource: "selfsubjectrulesreviews",
			New: func() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} },
		},
		{
			GVK: authorization.WithKind("SubjectAccessReview"), Resource: "subjectaccessreviews",
			New: func() runtime.Object { return &authorizationv1.SubjectAccessReview{} },
		},
	}
})

// All lists the served reviews.
func All() []Review { return all() }

// Find returns the review of a resource, or nil.
func Find(gvr schema.GroupVersionResource) *Review {
	for i := range all() {
		if r := &all()[i]; r.GVK.GroupVersion() == gvr.GroupVersion() && r.Resource == gvr.Resource {
			return r
		}
	}
	return nil
}
