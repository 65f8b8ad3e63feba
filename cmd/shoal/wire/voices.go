package wire

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/fieldmanager"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/apiserver/policies"
	"github.com/shoal-edge/shoal/apiserver/webhooks"
	"github.com/shoal-edge/shoal/store"
)

// voices are what users have a say in requests with: policies and webhooks.
type voices struct {
	policies *policies.Enforcer
	hooks    *webhooks.Caller
	// converter is for custom objects.
	converter *webhooks.Converter
}

// newVoices is called before the server has a store: nobody is asked anything until it does.
func newVoices(s *Server) *voices {
	v := &voices{
		policies: policies.New(policies.Config{
			Authorizer: laterAuthorizer{s}, Scale: apiserver.ScaleOf, Merge: fieldmanager.New().Merge,
			Kind: func(gvk schema.GroupVersionKind) *api.Kind { return apiserver.KindOf(s.durable, gvk) },
		}),
		hooks: webhooks.New(webhooks.Config{
			Authorizer: laterAuthorizer{s}, DialDevice: s.gate.Dial, Scale: apiserver.ScaleOf, Registry: s.registry, Logger: s.o.Logger,
		}),
	}
	v.converter = v.hooks.NewConverter(func() store.Reader { return s.durable })
	return v
}

// admit lets both refuse what the store never sees.
func (v *voices) admit(ctx context.Context, r *matching.Request) error {
	if err := v.policies.Admit(ctx, r); err != nil {
		return err
	}
	return v.hooks.Admit(ctx, r)
}

// laterAuthorizer is the authorizer that a server will have.
type laterAuthorizer struct{ *Server }

// Authorize implements access.Authorizer.
func (z laterAuthorizer) Authorize(ctx context.Context, a *access.Attributes) (allowed bool, reason string) {
	return z.authorizer.Authorize(ctx, a)
}
