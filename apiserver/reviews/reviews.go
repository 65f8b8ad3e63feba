// Package reviews owns the kinds that are asked but never stored: who am I, and may I do this.
package reviews

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The reviews that are served.
var (
	SelfSubject       = authenticationv1.SchemeGroupVersion.WithResource("selfsubjectreviews")
	SelfSubjectAccess = authorizationv1.SchemeGroupVersion.WithResource("selfsubjectaccessreviews")
)

// Resources lists them.
func Resources() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{SelfSubject, SelfSubjectAccess}
}

// Kind is the kind of a review.
func Kind(r schema.GroupVersionResource) schema.GroupVersionKind {
	if r == SelfSubject {
		return r.GroupVersion().WithKind("SelfSubjectReview")
	}
	return r.GroupVersion().WithKind("SelfSubjectAccessReview")
}
