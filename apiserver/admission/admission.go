// Package admission owns what the API server adds to objects and refuses in them on their way into the store, beyond what their
// kinds say: a table of small plugins, named as upstream's and in upstream's order, each in a file of its own. What a plugin says
// when it refuses something is upstream's wording, which people and programs look for.
//
// Plugins read the store and remember nothing that the store does not have: every server decides the same way, and a new leader
// decides as the one before. What must hold in the face of concurrent writes is part of the write's transaction.
package admission

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/quota"
)

// Plugin looks at every write twice: Admit may change the object before it is validated, Review may refuse it afterwards. Either
// may be nil. Removed tells what else goes when an object goes for good.
type Plugin struct {
	Name          string
	Admit, Review store.AdmitFunc
	Removed       func(r store.Reader, gone api.Object) []store.Op
}

// Config configures the plugins.
type Config struct {
	// ReplaceAfter is how long a pod without tolerations of its own stays on a node that is not ready or unreachable. Default: 5m.
	ReplaceAfter time.Duration
	PodSecurity  PodSecurityConfig
	Services     ServicesConfig
	// Policies are what users have written down, and Webhooks the programs of others. Nil: nobody has a say.
	Policies, Webhooks Voice
	// Quotas counts what is used; it may be shared. Nil: one of its own.
	Quotas *quota.Counter
	// Now is the clock by which pods that should have ended count no more. Nil: time.Now.
	Now func() time.Time
}

// Voice is somebody else who has a say in writes. Mutate calls settle when it has changed the object.
type Voice interface {
	Mutate(ctx context.Context, a *store.Admission, settle func() error) error
	Validate(ctx context.Context, a *store.Admission) error
}

// Plugins is a table of plugins, in the order in which they are asked.
type Plugins []Plugin

// New returns all plugins.
func New(cfg Config) Plugins {
	all := Plugins{
		namespaceLifecycle(),
		limitRanger(),
		serviceAccounts(),
		podSecurity(cfg.PodSecurity),
		priority(),
		defaultTolerationSeconds(cfg.ReplaceAfter),
		storageInUse(),
		defaultStorageClass(),
		runtimeClass(),
		disconnect(),
		defaultIngressClass(),
	}
	own := all.Admit()
	if cfg.Policies != nil {
		all = append(all, voice("AdmissionPolicies", cfg.Policies, own))
	}
	if cfg.Webhooks != nil {
		all = append(all, voice("Webhooks", cfg.Webhooks, own))
	}
	return append(all, services(cfg.Services), resourceQuota(cfg))
}

// voice is a plugin of somebody else. Others come after what the server itself adds to objects, which looks again at what they have changed, and before
// addresses are taken and quotas are counted.
func voice(name string, v Voice, before []store.Admitter) Plugin {
	return Plugin{
		Name: name,
		Admit: func(ctx context.Context, a *store.Admission) error {
			return v.Mutate(ctx, a, func() error {
				for _, plugin := range before {
					if err := plugin.Admit(ctx, a); err != nil {
						return err
					}
				}
				return nil
			})
		},
		Review: v.Validate,
	}
}

// Admit is what store.ClientConfig.Admit should be.
func (p Plugins) Admit() []store.Admitter {
	return p.collect(func(p Plugin) store.AdmitFunc { return p.Admit })
}

// Review is what store.ClientConfig.Review should be.
func (p Plugins) Review() []store.Admitter {
	return p.collect(func(p Plugin) store.AdmitFunc { return p.Review })
}

// Removed is what store.ClientConfig.Removed should be.
func (p Plugins) Removed(r store.Reader, gone api.Object) []store.Op {
	var ops []store.Op
	for _, plugin := range p {
		if plugin.Removed != nil {
			ops = append(ops, plugin.Removed(r, gone)...)
		}
	}
	return ops
}

func (p Plugins) collect(of func(Plugin) store.AdmitFunc) []store.Admitter {
	var all []store.Admitter
	for _, plugin := range p {
		if f := of(plugin); f != nil {
			all = append(all, f)
		}
	}
	return all
}

// created makes a function of new objects of one type.
func created[T any](f func(ctx context.Context, a *store.Admission, obj *T) error) store.AdmitFunc {
	return on(f, store.OpCreate)
}

// written makes a function of new and changed objects of one type.
func written[T any](f func(ctx context.Context, a *store.Admission, obj *T) error) store.AdmitFunc {
	return on(f, store.OpCreate, store.OpUpdate)
}

func on[T any](f func(ctx context.Context, a *store.Admission, obj *T) error, operations ...store.Operation) store.AdmitFunc {
	return func(ctx context.Context, a *store.Admission) error {
		obj, ok := any(a.Object).(*T)
		if !ok || !slices.Contains(operations, a.Operation) || a.Subresource != "" {
			return nil
		}
		return f(ctx, a, obj)
	}
}

// newest is the object that is newest, the first by name if several are; nil if there is none.
func newest[T any, P interface {
	*T
	api.Object
}](objects []P,
) P {
	var found P
	for _, o := range objects { // they come sorted by name
		if found != nil {
			if made, latest := o.GetCreationTimestamp(), found.GetCreationTimestamp(); !made.After(latest.Time) {
				continue
			}
		}
		found = o
	}
	return found
}
