package api

import (
	"fmt"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/rbac"
	rbacv1defaults "k8s.io/kubernetes/pkg/apis/rbac/v1"
	"k8s.io/kubernetes/pkg/apis/rbac/validation"
)

func roles() *Kind {
	return install[rbacv1.Role](roleKind(&Kind{
		GVK:        rbacv1.SchemeGroupVersion.WithKind("Role"),
		Resource:   "roles",
		Singular:   "role",
		Namespaced: true,
		New:        func() Object { return &rbacv1.Role{} },
		NewList:    func() runtime.Object { return &rbacv1.RoleList{} },
	}), strategy[rbacv1.Role, rbac.Role]{
		in:             rbacv1defaults.Convert_v1_Role_To_rbac_Role,
		out:            rbacv1defaults.Convert_rbac_Role_To_v1_Role,
		declared:       rbacv1defaults.Validate_Role,
		validate:       validation.ValidateRole,
		validateUpdate: validation.ValidateRoleUpdate,
	})
}

func clusterRoles() *Kind {
	return install[rbacv1.ClusterRole](roleKind(&Kind{
		GVK:      rbacv1.SchemeGroupVersion.WithKind("ClusterRole"),
		Resource: "clusterroles",
		Singular: "clusterrole",
		New:      func() Object { return &rbacv1.ClusterRole{} },
		NewList:  func() runtime.Object { return &rbacv1.ClusterRoleList{} },
	}), strategy[rbacv1.ClusterRole, rbac.ClusterRole]{
		in:       rbacv1defaults.Convert_v1_ClusterRole_To_rbac_ClusterRole,
		out:      rbacv1defaults.Convert_rbac_ClusterRole_To_v1_ClusterRole,
		declared: rbacv1defaults.Validate_ClusterRole,
		validate: func(n *rbac.ClusterRole) field.ErrorList {
			return validation.ValidateClusterRole(n, validation.ClusterRoleValidationOptions{})
		},
		validateUpdate: func(n, o *rbac.ClusterRole) field.ErrorList {
			return validation.ValidateClusterRoleUpdate(n, o, validation.ClusterRoleValidationOptions{
				AllowInvalidLabelValueInSelector: selectsInvalidly(o),
			})
		},
	})
}

// selectsInvalidly reports whether a role of old aggregates by a selector that would be refused today.
func selectsInvalidly(r *rbac.ClusterRole) bool {
	if r.AggregationRule == nil {
		return false
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		selector := &r.AggregationRule.ClusterRoleSelectors[i]
		if len(metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0 {
			return true
		}
	}
	return false
}

// roleKind adds what the two kinds of roles share. Upstream prints them in its plainest form.
func roleKind(k *Kind) *Kind {
	k.Verbs, k.CreateOnUpdate = crud(), true
	k.Columns = []Column{
		nameColumn(), {Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	}
	k.Row = func(o Object, _ time.Time) []any {
		return []any{o.GetName(), o.GetCreationTimestamp().UTC().Format(time.RFC3339)}
	}
	return k
}

func roleBindings() *Kind {
	k := bindingKind(&Kind{
		GVK:        rbacv1.SchemeGroupVersion.WithKind("RoleBinding"),
		Resource:   "rolebindings",
		Singular:   "rolebinding",
		Namespaced: true,
		New:        func() Object { return &rbacv1.RoleBinding{} },
		NewList:    func() runtime.Object { return &rbacv1.RoleBindingList{} },
		Default:    func(o Object) { rbacv1defaults.SetObjectDefaults_RoleBinding(o.(*rbacv1.RoleBinding)) },
	}, "roleBinding", rbacv1.RoleBinding{}.SwaggerDoc()["roleRef"])
	k.Row = func(o Object, now time.Time) []any {
		b := o.(*rbacv1.RoleBinding)
		return bindingRow(b, b.RoleRef, b.Subjects, now)
	}
	return install[rbacv1.RoleBinding](k, strategy[rbacv1.RoleBinding, rbac.RoleBinding]{
		in:             rbacv1defaults.Convert_v1_RoleBinding_To_rbac_RoleBinding,
		out:            rbacv1defaults.Convert_rbac_RoleBinding_To_v1_RoleBinding,
		declared:       rbacv1defaults.Validate_RoleBinding,
		validate:       validation.ValidateRoleBinding,
		validateUpdate: validation.ValidateRoleBindingUpdate,
	})
}

func clusterRoleBindings() *Kind {
	k := bindingKind(&Kind{
		GVK:      rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"),
		Resource: "clusterrolebindings",
		Singular: "clusterrolebinding",
		New:      func() Object { return &rbacv1.ClusterRoleBinding{} },
		NewList:  func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },
		Default:  func(o Object) { rbacv1defaults.SetObjectDefaults_ClusterRoleBinding(o.(*rbacv1.ClusterRoleBinding)) },
	}, "clusterRoleBinding", rbacv1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"])
	k.Row = func(o Object, now time.Time) []any {
		b := o.(*rbacv1.ClusterRoleBinding)
		return bindingRow(b, b.RoleRef, b.Subjects, now)
	}
	return install[rbacv1.ClusterRoleBinding](k, strategy[rbacv1.ClusterRoleBinding, rbac.ClusterRoleBinding]{
		in:             rbacv1defaults.Convert_v1_ClusterRoleBinding_To_rbac_ClusterRoleBinding,
		out:            rbacv1defaults.Convert_rbac_ClusterRoleBinding_To_v1_ClusterRoleBinding,
		declared:       rbacv1defaults.Validate_ClusterRoleBinding,
		validate:       validation.ValidateClusterRoleBinding,
		validateUpdate: validation.ValidateClusterRoleBindingUpdate,
	})
}

// bindingKind adds what the two kinds of bindings share.
func bindingKind(k *Kind, name, roleRef string) *Kind {
	k.Verbs, k.CreateOnUpdate = crud(), true
	k.Columns = []Column{
		nameColumn(), text("Role", roleRef), ageColumn(),
		wide("Users", "Users in the "+name), wide("Groups", "Groups in the "+name), wide("ServiceAccounts", "ServiceAccounts in the "+name),
	}
	return k
}

func bindingRow(o Object, ref rbacv1.RoleRef, subjects []rbacv1.Subject, now time.Time) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{
		o.GetName(), fmt.Sprintf("%s/%s", ref.Kind, ref.Name), age(o, now),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}
