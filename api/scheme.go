package api

import (
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var scheme = sync.OnceValue(func() *runtime.Scheme {
	s := runtime.NewScheme()
	versions := map[schema.GroupVersion]bool{
		authenticationv1.SchemeGroupVersion: true, authorizationv1.SchemeGroupVersion: true, corev1.SchemeGroupVersion: true,
	}
	for _, k := range Served() {
		versions[k.GVK.GroupVersion()] = true
	}
	for gv := range versions {
		metav1.AddToGroupVersion(s, gv)
	}
	if err := metav1.AddMetaToScheme(s); err != nil {
		panic(err) // the same types under the same names, always: it cannot fail on one machine only
	}
	for _, k := range Served() {
		s.AddKnownTypeWithName(k.GVK, k.New())
		s.AddKnownTypeWithName(k.GVK.GroupVersion().WithKind(k.GVK.Kind+"List"), k.NewList())
	}
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Binding{})
	s.AddKnownTypes(policyv1.SchemeGroupVersion, &policyv1.Eviction{})
	s.AddKnownTypes(autoscalingv1.SchemeGroupVersion, &autoscalingv1.Scale{})
	s.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.SelfSubjectReview{}, &authenticationv1.TokenRequest{},
		&authenticationv1.TokenReview{})
	s.AddKnownTypes(authorizationv1.SchemeGroupVersion, &authorizationv1.SelfSubjectAccessReview{}, &authorizationv1.SubjectAccessReview{},
		&authorizationv1.LocalSubjectAccessReview{}, &authorizationv1.SelfSubjectRulesReview{})
	return s
})

// Scheme knows the served kinds, their lists, the types of their subresources and the options of every verb. It holds no
// conversions and no defaults: a Kind has those.
func Scheme() *runtime.Scheme { return scheme() }
