// Package policies owns what ValidatingAdmissionPolicies and MutatingAdmissionPolicies say of a request: which of them are bound to it, with which
// parameters, what they change, and what becomes of a request that does not pass.
//
// Policies are a function of what is stored; nobody else is asked. A server that was built without the tag cel keeps them and warns who writes them
// that they are not enforced.
package policies

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
)

// Config configures an Enforcer.
type Config struct {
	// Authorizer answers the expressions that ask what somebody may do. Nil: nobody may do anything.
	Authorizer access.Authorizer
	// Kind finds the kind of a policy's parameters; nil if it is not served.
	Kind func(schema.GroupVersionKind) *api.Kind
	// Merge merges a part of an object of a kind into the whole, by the kind's schema.
	Merge func(kind *api.Kind, object, part map[string]any) (map[string]any, error)
	// Scale makes the Scale of an object that has one.
	Scale func(obj api.Object) (runtime.Object, error)
}
