package webhooks

import (
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/store"
)

// match finds in which version a webhook wants to see a request; nil if it does not.
//
// A webhook that asks for one version of a kind also hears of requests in another one, in the version that it asked for, unless it wants
// exact matches only.
func (h *hook) match(r *request) *api.Kind {
	if r.as.GVK.Group == admissionregistrationv1.GroupName || !h.inNamespace(r) || !h.ofObject(r) {
		return nil // who is asked must be changeable without asking him
	}
	if h.covers(r, r.as) {
		return r.as
	}
	if h.MatchPolicy != nil && *h.MatchPolicy == admissionregistrationv1.Exact {
		return nil
	}
	for _, other := range versions(r.as.Storage()) {
		if other != r.as && h.covers(r, other) {
			return other
		}
	}
	return nil
}

// versions are all versions of a kind that are served.
func versions(stored *api.Kind) []*api.Kind {
	var all []*api.Kind
	if v := custom.Of(stored); v != nil {
		for _, other := range v.Definition.Served {
			all = append(all, other.Kind)
		}
		return all
	}
	for _, kind := range api.Kinds() {
		if kind.Storage() == stored {
			all = append(all, kind)
		}
	}
	return all
}

func (h *hook) inNamespace(r *request) bool {
	if h.namespaces.Empty() {
		return true
	}
	if namespace, ok := r.subject().(*corev1.Namespace); ok && r.sub == "" {
		return h.namespaces.Matches(labels.Set(namespace.Labels))
	}
	if r.namespace == "" {
		return true
	}
	namespace, ok := store.Get[corev1.Namespace](r.reader, "", r.namespace)
	return ok && h.namespaces.Matches(labels.Set(namespace.Labels))
}

func (h *hook) ofObject(r *request) bool {
	if h.objects.Empty() {
		return true
	}
	for _, obj := range []api.Object{r.object, r.old} {
		if obj != nil && h.objects.Matches(labels.Set(obj.GetLabels())) {
			return true
		}
	}
	return false
}

// covers reports whether one of the rules is about the request, were it in some version.
func (h *hook) covers(r *request, kind *api.Kind) bool {
	for _, rule := range h.Rules {
		switch {
		case !has(rule.Operations, admissionregistrationv1.OperationType(r.operation)),
			!has(rule.APIGroups, kind.GVK.Group), !has(rule.APIVersions, kind.GVK.Version),
			rule.Scope != nil && *rule.Scope == admissionregistrationv1.NamespacedScope && !kind.Namespaced,
			rule.Scope != nil && *rule.Scope == admissionregistrationv1.ClusterScope && kind.Namespaced:
			continue
		}
		for _, pattern := range rule.Resources {
			resource, sub, _ := strings.Cut(pattern, "/")
			if (resource == "*" || resource == kind.Resource) && (sub == "*" || sub == r.sub) {
				return true
			}
		}
	}
	return false
}

func has[T ~string](all []T, one T) bool {
	return slices.Contains(all, one) || slices.Contains(all, "*")
}
