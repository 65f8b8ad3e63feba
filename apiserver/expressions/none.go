//go:build !cel

package expressions

import (
	"context"
	"errors"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/matching"
)

// Conditions are what must hold of a request for somebody to be asked about it. This build cannot tell whether they do.
type Conditions struct{ ignore bool }

var errNotEvaluated = errors.New("this server evaluates no matchConditions; one that is built with the tag cel does")

// Compile prepares conditions; nil if there are none.
func Compile(all []admissionregistrationv1.MatchCondition, failure *admissionregistrationv1.FailurePolicyType, _, _ string) *Conditions {
	if len(all) == 0 {
		return nil
	}
	return &Conditions{failure != nil && *failure == admissionregistrationv1.Ignore}
}

// Match fails, or says that nothing matches where failures are to be ignored. Conditions are refused when they are written: these were
// stored by a server that could evaluate them.
func (c *Conditions) Match(context.Context, *matching.Request, *api.Kind, access.Authorizer) (bool, error) {
	if c.ignore {
		return false, nil
	}
	return false, errNotEvaluated
}
