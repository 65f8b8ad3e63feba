package rbac

import (
	"context"
	"fmt"
	"strconv"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	rbacmatch "k8s.io/kubernetes/pkg/apis/rbac/v1"

	"github.com/shoal-edge/shoal/apiserver/access"
)

// Authorize implements access.Authorizer.
func (x *Index) Authorize(_ context.Context, a *access.Attributes) (allowed bool, reason string) {
	var failed []error
	x.visit(a.User, a.Namespace, func(b *binding, rules []rbacv1.PolicyRule, err error) bool {
		if err != nil {
			failed = append(failed, err)
			return true
		}
		for i := range rules {
			if Allows(&rules[i], a) {
				allowed, reason = true, "RBAC: allowed by "+b.describe(a.User)
				return false
			}
		}
		return true
	})
	if !allowed && len(failed) > 0 {
		reason = fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(failed))
	}
	return allowed, reason
}

// RulesFor returns every rule that applies to a user in a namespace (empty: in the whole cluster). The error tells of bindings
// whose role there is not; the rules are right without them.
func (x *Index) RulesFor(u *access.User, namespace string) ([]rbacv1.PolicyRule, error) {
	var all []rbacv1.PolicyRule
	var failed []error
	x.visit(u, namespace, func(_ *binding, rules []rbacv1.PolicyRule, err error) bool {
		if err != nil {
			failed = append(failed, err)
		}
		all = append(all, rules...)
		return true
	})
	return all, utilerrors.NewAggregate(failed)
}

// visit calls f for each binding of a user, with the rules of its role, until f returns false. Bindings of the cluster come first.
func (x *Index) visit(u *access.User, namespace string, f func(b *binding, rules []rbacv1.PolicyRule, err error) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.catchUp()
	seen := map[*binding]bool{}
	scopes := []string{"", namespace}
	if namespace == "" {
		scopes = scopes[:1]
	}
	for _, scope := range scopes {
		found := [][]*binding{x.subjects[subject{scope, rbacv1.UserKind, u.Name}]}
		for _, group := range u.Groups {
			found = append(found, x.subjects[subject{scope, rbacv1.GroupKind, group}])
		}
		for _, some := range found {
			for _, b := range some {
				if seen[b] {
					continue
				}
				seen[b] = true
				rules, err := x.rulesOf(b.ref, scope)
				if !f(b, rules, err) {
					return
				}
			}
		}
	}
}

// rulesOf returns the rules of the role that a binding in a namespace refers to. Callers hold the lock.
func (x *Index) rulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	key, ok := roleKey(ref, namespace)
	if !ok {
		return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
	}
	rules, ok := x.roles[key]
	if !ok {
		singular := "role"
		if key.Resource == clusterRoles {
			singular = "clusterrole"
		}
		return nil, apierrors.NewNotFound(rbacv1.Resource(singular), ref.Name)
	}
	return rules, nil
}

// Allows reports whether a rule allows what is asked.
func Allows(rule *rbacv1.PolicyRule, a *access.Attributes) bool {
	if !rbacmatch.VerbMatches(rule, a.Verb) {
		return false
	}
	if a.Resource == "" {
		return rbacmatch.NonResourceURLMatches(rule, a.Path)
	}
	resource := a.Resource
	if a.Sub != "" {
		resource += "/" + a.Sub
	}
	return rbacmatch.APIGroupMatches(rule, a.Group) && rbacmatch.ResourceMatches(rule, resource, a.Sub) &&
		rbacmatch.ResourceNameMatches(rule, a.Name)
}

func quote(s string) string { return strconv.Quote(s) }
