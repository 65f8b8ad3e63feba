// Package nodes decides what a device may do with its certificate: read what its own pods need, write itself and its pods, and
// nothing of any other device. It holds what a stolen card can reach to what was on it anyway.
package nodes

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-helpers/storage/ephemeral"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"github.com/shoal-edge/shoal/api/bootstrap"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/rbac"
	"github.com/shoal-edge/shoal/store"
)

// Authorizer decides by the pods that the store has on a device now: it keeps nothing of its own.
type Authorizer struct {
	reader store.Reader
	static []rbacv1.PolicyRule // for what is the same for every device
	rules  map[string]rule     // by resource with its group and subresource
}

// rule decides about one resource. The reason says why not.
type rule func(node string, a *access.Attributes) (allowed bool, reason string)

// New returns an authorizer over the store of pods.
func New(reader store.Reader) *Authorizer {
	z := &Authorizer{reader: reader, static: bootstrap.NodeRules()}
	lease := named("get", "create", "update", "patch", "delete")
	z.rules = map[string]rule{
		"pods":                   z.pods,
		"pods/status":            only("update", "patch"),
		"pods/eviction":          only("create"),
		"nodes":                  own("get", "list", "watch", "create", "update", "patch"),
		"nodes/status":           own("update", "patch"),
		"secrets":                z.used("get", "list", "watch"),
		"configmaps":             z.used("get", "list", "watch"),
		"persistentvolumeclaims": z.used("get"),
		"serviceaccounts":        z.used("get"),
		"serviceaccounts/token":  z.used("create"),
		"leases.coordination.k8s.io": func(node string, a *access.Attributes) (bool, string) {
			if a.Namespace != corev1.NamespaceNodeLease {
				return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
			}
			return lease(node, a)
		},
		"csinodes.storage.k8s.io": named("get", "create", "update", "patch", "delete"),
	}
	for _, none := range []string{
		"persistentvolumeclaims/status", "persistentvolumes", "volumeattachments.storage.k8s.io", "resourceclaims.resource.k8s.io",
		"resourceslices.resource.k8s.io", "podcertificaterequests.certificates.k8s.io",
	} {
		z.rules[none] = only() // no device of this cluster deals with them
	}
	return z
}

// Authorize decides about a request of a device.
func (z *Authorizer) Authorize(_ context.Context, node string, a *access.Attributes) (allowed bool, reason string) {
	if a.Resource != "" {
		resource := schema.GroupResource{Group: a.Group, Resource: a.Resource}.String()
		whole := resource
		if a.Sub != "" {
			whole += "/" + a.Sub
		}
		if rule := z.rules[whole]; rule != nil {
			return rule(node, a)
		}
		if z.rules[resource] != nil {
			return false, "" // a subresource that no device needs
		}
	}
	for i := range z.static {
		if rbac.Allows(&z.static[i], a) {
			return true, ""
		}
	}
	return false, ""
}

// only allows some verbs, for any object: what is written is looked at by the guard.
func only(verbs ...string) rule {
	return func(_ string, a *access.Attributes) (bool, string) { return slices.Contains(verbs, a.Verb), "" }
}

// named allows some verbs on the object that has the device's name. The name of a new one is looked at by the guard.
func named(verbs ...string) rule {
	return func(node string, a *access.Attributes) (bool, string) {
		if !slices.Contains(verbs, a.Verb) {
			return false, ""
		}
		return a.Verb == "create" || a.Name == node, fmt.Sprintf("can only access %s with the same name as the requesting node", a.Resource)
	}
}

// own is named, with the words that upstream has for a device's own Node.
func own(verbs ...string) rule {
	return func(node string, a *access.Attributes) (bool, string) {
		switch {
		case !slices.Contains(verbs, a.Verb):
			return false, ""
		case a.Verb == "create" || a.Name == node:
			return true, ""
		case a.Name == "":
			return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		}
		return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, a.Name)
	}
}

// pods lets a device see and delete its own pods.
func (z *Authorizer) pods(node string, a *access.Attributes) (bool, string) {
	switch a.Verb {
	case "list", "watch":
		if selector, err := fields.ParseSelector(a.Fields); err == nil {
			if on, ok := selector.RequiresExactMatch("spec.nodeName"); ok && on == node {
				return true, ""
			}
		}
		if a.Name == "" {
			return false, "can only list/watch pods with spec.nodeName field selector"
		}
		fallthrough
	case "get":
		pod, ok := store.Get[corev1.Pod](z.reader, a.Namespace, a.Name)
		return ok && pod.Spec.NodeName == node, unrelated(node)
	case "delete":
		return true, "" // the guard looks at which
	}
	return false, ""
}

func unrelated(node string) string {
	return fmt.Sprintf("no relationship found between node '%s' and this object", node)
}

// used allows some verbs on an object that a pod of the device uses.
func (z *Authorizer) used(verbs ...string) rule {
	return func(node string, a *access.Attributes) (bool, string) {
		switch {
		case !slices.Contains(verbs, a.Verb):
			return false, fmt.Sprintf("can only %s resources of this type", verbs[0])
		case a.Namespace == "":
			return false, "can only read namespaced object of this type"
		case a.Name == "":
			return false, "No Object name found"
		}
		for _, pod := range store.ListBy[corev1.Pod](z.reader, "node", node) {
			if pod.Namespace == a.Namespace && uses(pod, a.Resource, a.Name) {
				return true, ""
			}
		}
		return false, unrelated(node)
	}
}

// uses reports whether a pod needs an object of its namespace to run.
func uses(pod *corev1.Pod, resource, name string) bool {
	found := false
	visit := func(n string) bool {
		found = found || n == name
		return !found
	}
	switch resource {
	case "secrets":
		podutil.VisitPodSecretNames(pod, visit)
	case "configmaps":
		podutil.VisitPodConfigmapNames(pod, visit)
	case "serviceaccounts":
		return pod.Spec.ServiceAccountName == name
	case "persistentvolumeclaims":
		for i := range pod.Spec.Volumes {
			v := &pod.Spec.Volumes[i]
			if v.PersistentVolumeClaim != nil {
				visit(v.PersistentVolumeClaim.ClaimName)
			}
			if v.Ephemeral != nil {
				visit(ephemeral.VolumeClaimName(pod, v))
			}
		}
	}
	return found
}
