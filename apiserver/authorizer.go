package apiserver

import (
	"context"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/rbac"
	"github.com/shoal-edge/shoal/store"
)

// Authorizer decides who may do what: administrators and servers everything, everybody else what their roles say.
type Authorizer struct {
	roles *rbac.Index
}

// NewAuthorizer returns an authorizer by the roles that are in the durable store.
func NewAuthorizer(durable *store.Store) *Authorizer {
	return &Authorizer{roles: rbac.NewIndex(durable)}
}

// Authorize implements access.Authorizer.
func (z *Authorizer) Authorize(ctx context.Context, a *access.Attributes) (allowed bool, reason string) {
	if a.User.All() {
		return true, ""
	}
	return z.roles.Authorize(ctx, a)
}

// Guards look at what users write: that it grants nobody more than the user may grant.
func (z *Authorizer) Guards() []store.Admitter {
	return []store.Admitter{rbac.NoEscalation(z.roles, z)}
}
