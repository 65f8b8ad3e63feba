package controllers

import (
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/bootstrap"
	"github.com/shoal-edge/shoal/store"
)

func (c *cluster) clusterRole(name string) *rbacv1.ClusterRole {
	c.Helper()
	role, ok := store.Get[rbacv1.ClusterRole](c.durable, "", name)
	if !ok {
		c.Fatalf("there is no cluster role %s", name)
	}
	return role
}

func mentions(rules []rbacv1.PolicyRule, resource string) bool {
	return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, resource) })
}

func TestDefaultRolesAreMadeAndCompleted(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		for _, o := range bootstrap.Policy() {
			if !c.exists(store.KeyOf(c.durable, o)) {
				t.Errorf("%s is not there", store.KeyOf(c.durable, o))
			}
		}
		extra := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"boats"}}
		basic, node := key(clusterRoles, "", "system:basic-user"), key(clusterRoles, "", "system:node")
		c.modify(basic, "", func(o api.Object) { o.(*rbacv1.ClusterRole).Rules = []rbacv1.PolicyRule{extra} })
		c.modify(node, "", func(o api.Object) {
			o.SetAnnotations(map[string]string{rbacv1.AutoUpdateAnnotationKey: "false"})
			o.(*rbacv1.ClusterRole).Rules = nil
		})
		bound := key("clusterrolebindings.rbac.authorization.k8s.io", "", "system:discovery")
		c.modify(bound, "", func(o api.Object) { o.(*rbacv1.ClusterRoleBinding).Subjects = nil })
		public := key("clusterrolebindings.rbac.authorization.k8s.io", "", "system:public-info-viewer")
		c.delete(public)
		c.create(&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: public.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		})
		c.stepDown()
		before := c.durable.Revision()
		c.lead()
		c.settle()

		if rules := c.clusterRole(basic.Name).Rules; !mentions(rules, "selfsubjectreviews") || !mentions(rules, "boats") {
			t.Errorf("what is missing is added, and nothing taken away: %v", rules)
		}
		if rules := c.clusterRole(node.Name).Rules; len(rules) > 0 {
			t.Error("a role that somebody keeps for himself was changed")
		}
		if b, _ := store.Get[rbacv1.ClusterRoleBinding](c.durable, "", bound.Name); len(b.Subjects) != 1 {
			t.Errorf("the binding names %v", b.Subjects)
		}
		if b, _ := store.Get[rbacv1.ClusterRoleBinding](c.durable, "", public.Name); b.RoleRef.Name != public.Name {
			t.Errorf("the binding refers to %s", b.RoleRef.Name)
		}
		if wrote := c.durable.Revision() - before; wrote != 4 {
			t.Errorf("%d writes for 3 objects that were not as they should be", wrote)
		}
	})
}

func TestClusterRolesAggregate(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		for role, resource := range map[string]string{"view": "pods/log", "edit": "pods/exec", "admin": "rolebindings"} {
			if !mentions(c.clusterRole(role).Rules, resource) {
				t.Errorf("%s has no %s", role, resource)
			}
		}
		if mentions(c.clusterRole("view").Rules, "secrets") || !mentions(c.clusterRole("admin").Rules, "pods/log") {
			t.Error("admin gathers what edit does, edit what view does, and none the other way")
		}
		boats := &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{
				Name: "boats", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"},
			},
			Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"boats"}}},
		}
		c.create(boats)
		c.settle()
		if !mentions(c.clusterRole("view").Rules, "boats") || !mentions(c.clusterRole("admin").Rules, "boats") {
			t.Error("a new role is not gathered")
		}
		c.modify(key(clusterRoles, "", "view"), "", func(o api.Object) {
			role := o.(*rbacv1.ClusterRole)
			role.Rules = append(role.Rules, rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}})
		})
		c.settle()
		if mentions(c.clusterRole("view").Rules, "*") {
			t.Error("rules of an aggregating role are not its own")
		}
		c.delete(key(clusterRoles, "", "boats"))
		c.settle()
		if mentions(c.clusterRole("view").Rules, "boats") {
			t.Error("a role that has gone is still gathered")
		}
	})
}

func TestSystemPriorityClassesAreThere(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		k := key(priorityClasses, "", "system-node-critical")
		if _, there := c.durable.Get(k); !there {
			t.Fatal("it is not there")
		}
		if _, err := c.client.Delete(c.ctx, k, nil); err != nil {
			t.Fatal(err)
		}
		c.settle()
		if class, there := store.Get[schedulingv1.PriorityClass](c.durable, "", k.Name); !there || class.Value != 2000001000 {
			t.Errorf("%v", class)
		}
	})
}
