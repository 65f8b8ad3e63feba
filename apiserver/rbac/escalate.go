package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-helpers/auth/rbac/validation"
	rbacmatch "k8s.io/kubernetes/pkg/apis/rbac/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// NoEscalation refuses to let users write a role with rules that they do not hold themselves, unless they may "escalate" it, and to
// bind a role that holds more than they do, unless they may "bind" it.
func NoEscalation(x *Index, authorizer access.Authorizer) store.Admitter {
	e := &escalation{index: x, authorizer: authorizer}
	return store.AdmitFunc(func(ctx context.Context, a *store.Admission) error {
		if a.Operation == store.OpDelete || a.Kind.GVK.Group != rbacv1.GroupName || a.Subresource != "" {
			return nil
		}
		user := access.FromContext(ctx)
		if user == nil {
			return errors.New("no user on context")
		}
		if user.All() || a.Old != nil && onlyCollected(a.Object, a.Old) {
			return nil
		}
		return e.check(ctx, user, a)
	})
}

type escalation struct {
	index      *Index
	authorizer access.Authorizer
}

func (e *escalation) check(ctx context.Context, u *access.User, a *store.Admission) error {
	namespace := a.Object.GetNamespace()
	var refuse error
	switch o := a.Object.(type) {
	case *rbacv1.Role:
		if e.may(ctx, u, a, "escalate", a.Kind.Resource, nameInURL(a), namespace) {
			return nil
		}
		refuse = e.covers(u, namespace, o.Rules)
	case *rbacv1.ClusterRole:
		if e.may(ctx, u, a, "escalate", a.Kind.Resource, nameInURL(a), "") {
			return nil
		}
		refuse = e.covers(u, "", o.Rules)
		older, _ := a.Old.(*rbacv1.ClusterRole)
		if refuse == nil && (gathers(o) || older != nil && gathers(older)) && e.covers(u, "", everything()) != nil {
			refuse = errors.New("must have cluster-admin privileges to use the aggregationRule")
		}
	case *rbacv1.RoleBinding:
		return e.bind(ctx, u, a, o.RoleRef, namespace)
	case *rbacv1.ClusterRoleBinding:
		return e.bind(ctx, u, a, o.RoleRef, "")
	}
	return forbid(a, refuse)
}

// bind checks the binding of a role.
func (e *escalation) bind(ctx context.Context, u *access.User, a *store.Admission, ref rbacv1.RoleRef, namespace string) error {
	key, ok := roleKey(ref, namespace)
	if !ok {
		return nil // validation refuses it
	}
	resource, _, _ := strings.Cut(key.Resource, ".")
	if e.may(ctx, u, a, "bind", resource, ref.Name, namespace) {
		return nil
	}
	e.index.mu.Lock()
	e.index.catchUp()
	rules, ok := e.index.roles[key]
	e.index.mu.Unlock()
	if !ok {
		return apierrors.NewNotFound(rbacv1.Resource(resource), ref.Name)
	}
	return forbid(a, e.covers(u, namespace, rules))
}

// may asks for one of the verbs that set the check aside.
func (e *escalation) may(ctx context.Context, u *access.User, a *store.Admission, verb, resource, name, namespace string) bool {
	allowed, _ := e.authorizer.Authorize(ctx, &access.Attributes{
		User: u, Verb: verb, Group: a.Kind.GVK.Group, Version: "*", Resource: resource, Name: name, Namespace: namespace,
	})
	return allowed
}

// covers reports, as an error, which of the rules the user does not hold.
func (e *escalation) covers(u *access.User, namespace string, rules []rbacv1.PolicyRule) error {
	held, unresolved := e.index.RulesFor(u, namespace)
	covered, missing := validation.Covers(held, rules)
	if covered {
		return nil
	}
	var told []string
	for _, rule := range compact(missing) {
		told = append(told, rbacmatch.CompactString(rule))
	}
	slices.Sort(told)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.Name, u.Groups, strings.Join(slices.Compact(told), "\n"))
	if unresolved != nil {
		text += fmt.Sprintf("; resolution errors: %v", []error{unresolved})
	}
	return errors.New(text)
}

// compact joins rules that differ by their verbs only; the missing rules come one verb at a time.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var joined []rbacv1.PolicyRule
next:
	for _, rule := range rules {
		for i := range joined {
			have := &joined[i]
			if len(rule.Resources) > 0 && slices.Equal(have.APIGroups, rule.APIGroups) && slices.Equal(have.Resources, rule.Resources) &&
				slices.Equal(have.ResourceNames, rule.ResourceNames) {
				have.Verbs = slices.Concat(have.Verbs, rule.Verbs)
				continue next
			}
		}
		joined = append(joined, rule)
	}
	return joined
}

// nameInURL is the name that the request's path has: that of a new object is not in it.
func nameInURL(a *store.Admission) string {
	if a.Operation == store.OpCreate {
		return ""
	}
	return a.Object.GetName()
}

func gathers(r *rbacv1.ClusterRole) bool {
	return r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

func everything() []rbacv1.PolicyRule {
	all := []string{"*"}
	return []rbacv1.PolicyRule{{Verbs: all, APIGroups: all, Resources: all}, {Verbs: all, NonResourceURLs: all}}
}

// onlyCollected reports whether an update changes nothing but what the garbage collector needs: owners and finalizers.
func onlyCollected(newer, older api.Object) bool {
	same := newer.DeepCopyObject().(api.Object)
	same.SetOwnerReferences(older.GetOwnerReferences())
	same.SetFinalizers(older.GetFinalizers())
	same.SetManagedFields(older.GetManagedFields())
	same.SetResourceVersion(older.GetResourceVersion())
	same.GetObjectKind().SetGroupVersionKind(older.GetObjectKind().GroupVersionKind())
	return equality.Semantic.DeepEqual(same, older)
}

func forbid(a *store.Admission, why error) error {
	if why == nil {
		return nil
	}
	return apierrors.NewForbidden(a.Kind.GVR().GroupResource(), a.Object.GetName(), why)
}
