package apiserver

import (
	"context"
	"strings"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/nodes"
	"github.com/shoal-edge/shoal/apiserver/rbac"
	"github.com/shoal-edge/shoal/store"
)

// Authorizer decides who may do what: administrators and servers everything, devices what their pods need, and everybody what
// their roles say.
type Authorizer struct {
	durable *store.Store
	roles   *rbac.Index
	nodes   *nodes.Authorizer
}

// NewAuthorizer returns an authorizer by the roles that are in the durable store.
func NewAuthorizer(durable *store.Store) *Authorizer {
	return &Authorizer{durable: durable, roles: rbac.NewIndex(durable), nodes: nodes.New(durable)}
}

// Authorize implements access.Authorizer.
func (z *Authorizer) Authorize(ctx context.Context, a *access.Attributes) (allowed bool, reason string) {
	if a.User.All() {
		return true, ""
	}
	if node, ok := a.User.Node(); ok {
		if allowed, reason = z.nodes.Authorize(ctx, node, a); allowed {
			return true, ""
		}
	}
	allowed, why := z.roles.Authorize(ctx, a)
	if allowed || reason == "" {
		return allowed, why
	}
	return false, strings.TrimSuffix(reason+", "+why, ", ")
}

// Guards look at what users write: that it grants nobody more than the user may grant, and is a device's own, that certificates
// are approved and signed by those who may, and that policies read nothing that their authors may not.
func (z *Authorizer) Guards() []store.Admitter {
	return []store.Admitter{rbac.NoEscalation(z.roles, z), nodes.Guard(), signerGuard(z), paramGuard(z)}
}
