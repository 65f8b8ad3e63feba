// Package webhooks owns the calls of admission webhooks: programs of others that look at what is written, change it (mutating webhooks)
// and refuse it (validating webhooks), as ValidatingWebhookConfigurations and MutatingWebhookConfigurations say.
//
// See https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/. A webhook that runs in a pod is called by way of
// its device's own link, so it works wherever the pod runs: behind NAT, and without a network between the devices.
package webhooks

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/expressions"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/apiserver/reach"
	"github.com/shoal-edge/shoal/store"
)

// Config configures a Caller.
type Config struct {
	// DialDevice opens a tunnel to a device's HTTP API. Nil: no webhook that runs in a pod can be called.
	DialDevice reach.Dialer
	// Authorizer answers the match conditions that ask what somebody may do. Nil: nobody may do anything.
	Authorizer access.Authorizer
	// Scale makes the Scale of an object that has one.
	Scale func(obj api.Object) (runtime.Object, error)
	// Registry gets the metrics. Nil: none.
	Registry prometheus.Registerer
	// Logger. Nil: none.
	Logger *slog.Logger
}

// Caller calls webhooks. It is safe for concurrent use.
type Caller struct {
	cfg     Config
	clients clients
	calls   *prometheus.HistogramVec

	mu       sync.Mutex
	compiled map[store.Key]configuration
}

// New returns a caller.
func New(cfg Config) *Caller {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Caller{
		cfg: cfg, compiled: map[store.Key]configuration{},
		// Named as upstream names it.
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_admission_webhook_admission_duration_seconds",
			Help:    "How long calls of admission webhooks took, by name, type and operation, and whether the request was rejected.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 25},
		}, []string{"name", "type", "operation", "rejected"}),
	}
	if cfg.Registry != nil {
		cfg.Registry.MustRegister(c.calls)
	}
	return c
}

// hook is one webhook: what mutating and validating ones have in common is all of a validating one.
type hook struct {
	admissionregistrationv1.ValidatingWebhook

	mutates    bool
	reinvoke   bool // when a later one has changed the object
	matcher    *matching.Matcher
	conditions *expressions.Conditions
}

// configuration is what one object says, compiled.
type configuration struct {
	revision uint64
	hooks    []*hook
}

// hooks are the webhooks of one kind of configuration, sorted by the names of those. What was compiled once is kept until it changes.
func (c *Caller) hooks(r store.Reader, resource string, compile func(store.Item) []*hook) []*hook {
	items, _ := r.List(resource+".admissionregistration.k8s.io", "")
	if len(items) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*hook
	for _, item := range items {
		known, ok := c.compiled[item.Key]
		if !ok || known.revision != item.Revision {
			if len(c.compiled) >= maxConfigurations {
				clear(c.compiled) // most of them are gone
			}
			known = configuration{item.Revision, compile(item)}
			c.compiled[item.Key] = known
		}
		all = append(all, known.hooks...)
	}
	return all
}

// maxConfigurations bounds what is kept of configurations, among them deleted ones.
const maxConfigurations = 256

func (c *Caller) validating(r store.Reader) []*hook {
	return c.hooks(r, "validatingwebhookconfigurations", func(item store.Item) (all []*hook) {
		obj, ok := r.Object(item)
		if !ok {
			return nil
		}
		for _, w := range obj.(*admissionregistrationv1.ValidatingWebhookConfiguration).Webhooks {
			all = append(all, compileHook(hook{ValidatingWebhook: w}))
		}
		return all
	})
}

func (c *Caller) mutating(r store.Reader) []*hook {
	return c.hooks(r, "mutatingwebhookconfigurations", func(item store.Item) (all []*hook) {
		obj, ok := r.Object(item)
		if !ok {
			return nil
		}
		for _, w := range obj.(*admissionregistrationv1.MutatingWebhookConfiguration).Webhooks {
			all = append(all, compileHook(hook{
				mutates: true, reinvoke: w.ReinvocationPolicy != nil && *w.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy,
				ValidatingWebhook: admissionregistrationv1.ValidatingWebhook{
					Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy,
					NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects,
					TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
				},
			}))
		}
		return all
	})
}

func compileHook(h hook) *hook {
	h.matcher = matching.New(h.Rules, h.MatchPolicy, h.NamespaceSelector, h.ObjectSelector)
	h.conditions = expressions.Compile(h.MatchConditions, h.FailurePolicy, h.typeName(), h.Name)
	return &h
}

// ignores reports whether a request passes when the webhook cannot be asked.
func (h *hook) ignores() bool {
	return h.FailurePolicy != nil && *h.FailurePolicy == admissionregistrationv1.Ignore
}

func (h *hook) typeName() string {
	if h.mutates {
		return "mutating"
	}
	return "validating"
}
