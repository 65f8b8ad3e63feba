package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/bootstrap"
	"github.com/shoal-edge/shoal/store"
)

// aggregation keeps the rules of every ClusterRole with an aggregationRule what its selectors find in other roles. It alone writes
// those rules.
type aggregation struct {
	c    *Controllers
	loop *loop

	mu    sync.Mutex
	names map[string]bool // of the roles that aggregate
}

func (c *Controllers) addRoles() {
	a := &aggregation{c: c, names: map[string]bool{}}
	a.loop = c.newLoop("clusterrole-aggregation", 1, a.reconcile)
	c.follow(clusterRoles, "", each(func(role *rbacv1.ClusterRole, deleted bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.names, role.Name)
		if role.AggregationRule != nil && !deleted {
			a.names[role.Name] = true
		}
		for name := range a.names {
			a.loop.add(key(clusterRoles, "", name))
		}
	}))

	defaults := map[store.Key]api.Object{}
	l := c.newLoop("default-roles", 4, func(ctx context.Context, k store.Key) (time.Duration, error) {
		err := c.ensureDefault(ctx, k, defaults[k])
		return 0, err
	})
	for _, object := range bootstrap.Policy() {
		k := store.KeyOf(c.reader, object)
		defaults[k] = object
		l.add(k)
	}
}

func (a *aggregation) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	role, ok := store.Get[rbacv1.ClusterRole](a.c.reader, "", k.Name)
	if !ok || role.AggregationRule == nil {
		return 0, nil
	}
	rules, err := a.gather(role)
	if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
		return 0, err
	}
	_, err = a.c.client.Modify(ctx, k, "", func(obj api.Object) error {
		obj.(*rbacv1.ClusterRole).Rules = rules
		return nil
	})
	return 0, err
}

// gather collects the rules of the roles that a role's selectors find, each once, in the order of the roles' names.
func (a *aggregation) gather(role *rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	items, _ := a.c.reader.List(clusterRoles, "")
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("the selector of cluster role %q: %w", role.Name, err)
		}
		for _, item := range items {
			if item.Key.Name == role.Name || !selector.Matches(labels.Set(metaOf(item.Value).Labels)) {
				continue
			}
			other, ok := store.Get[rbacv1.ClusterRole](a.c.reader, "", item.Key.Name)
			if !ok {
				continue
			}
			for _, rule := range other.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}

// ensureDefault makes a default role or binding, or adds to it what it lacks, unless a person has set its annotation
// rbac.authorization.kubernetes.io/autoupdate to "false". It takes nothing away, and happens at the start of each leadership.
func (c *Controllers) ensureDefault(ctx context.Context, k store.Key, want api.Object) error {
	item, ok := c.reader.Get(k)
	if !ok {
		_, err := c.client.Create(ctx, want)
		return ignoreExists(err)
	}
	if metaOf(item.Value).Annotations[rbacv1.AutoUpdateAnnotationKey] == "false" {
		return nil
	}
	if have, ok := c.reader.Object(item); ok && !sameRef(have, want) {
		if _, err := c.client.Delete(ctx, k, nil); err != nil { // what a binding refers to cannot be changed
			return err
		}
		_, err := c.client.Create(ctx, want)
		return ignoreExists(err)
	}
	_, err := c.client.Modify(ctx, k, "", func(have api.Object) error {
		have.SetLabels(merged(want.GetLabels(), have.GetLabels()))
		have.SetAnnotations(merged(want.GetAnnotations(), have.GetAnnotations()))
		complete(have, want)
		return nil
	})
	return err
}

// complete adds the rules or the subjects that are missing.
func complete(have, want api.Object) {
	switch h := have.(type) {
	case *rbacv1.Role:
		h.Rules = addRules(h.Rules, want.(*rbacv1.Role).Rules)
	case *rbacv1.ClusterRole:
		w := want.(*rbacv1.ClusterRole)
		h.Rules = addRules(h.Rules, w.Rules)
		switch {
		case w.AggregationRule == nil:
			h.AggregationRule = nil
		case h.AggregationRule == nil:
			h.AggregationRule = w.AggregationRule
		default:
			h.AggregationRule.ClusterRoleSelectors = add(h.AggregationRule.ClusterRoleSelectors, w.AggregationRule.ClusterRoleSelectors)
		}
	case *rbacv1.RoleBinding:
		h.Subjects = add(h.Subjects, want.(*rbacv1.RoleBinding).Subjects)
	case *rbacv1.ClusterRoleBinding:
		h.Subjects = add(h.Subjects, want.(*rbacv1.ClusterRoleBinding).Subjects)
	}
}

func addRules(have, want []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	_, missing := validation.Covers(have, want)
	return append(have, missing...)
}

func add[T any](have, want []T) []T {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h T) bool { return equality.Semantic.DeepEqual(h, w) }) {
			have = append(have, w)
		}
	}
	return have
}

func sameRef(have, want api.Object) bool {
	ref := func(o api.Object) rbacv1.RoleRef {
		switch o := o.(type) {
		case *rbacv1.RoleBinding:
			return o.RoleRef
		case *rbacv1.ClusterRoleBinding:
			return o.RoleRef
		}
		return rbacv1.RoleRef{}
	}
	return ref(have) == ref(want)
}

// merged is what is wanted, and over it what is there.
func merged(want, have map[string]string) map[string]string {
	all := maps.Clone(want)
	maps.Copy(all, have)
	return all
}
