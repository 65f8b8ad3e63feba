// Package rbac decides by the roles and bindings of the cluster (rbac.authorization.k8s.io) who may do what, and keeps users from
// granting more than they have.
package rbac

import (
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// The resources that the index follows.
const (
	roles               = "roles.rbac.authorization.k8s.io"
	clusterRoles        = "clusterroles.rbac.authorization.k8s.io"
	roleBindings        = "rolebindings.rbac.authorization.k8s.io"
	clusterRoleBindings = "clusterrolebindings.rbac.authorization.k8s.io"
)

// subject is a user or a group as a binding of a namespace (empty: of the whole cluster) names it. Service accounts are users.
type subject struct {
	namespace string
	kind      string // rbacv1.UserKind or rbacv1.GroupKind
	name      string
}

// binding is what a RoleBinding or ClusterRoleBinding says.
type binding struct {
	key      store.Key
	ref      rbacv1.RoleRef
	subjects []rbacv1.Subject
}

// Index is the roles by name and the bindings by subject. Before each question it takes in what has changed in the store, so an
// answer is as new as the store is, and nothing runs while nobody asks.
type Index struct {
	from *store.Store

	mu       sync.Mutex
	watchers map[string]*store.Watcher
	roles    map[store.Key][]rbacv1.PolicyRule
	bindings map[store.Key]*binding
	subjects map[subject][]*binding // sorted by their keys
}

// NewIndex returns an index of what the store holds now and later.
func NewIndex(from *store.Store) *Index {
	return &Index{
		from:     from,
		watchers: map[string]*store.Watcher{},
		roles:    map[store.Key][]rbacv1.PolicyRule{},
		bindings: map[store.Key]*binding{},
		subjects: map[subject][]*binding{},
	}
}

// catchUp takes in every change that the store has. Callers hold the lock.
func (x *Index) catchUp() {
	for _, resource := range []string{roles, clusterRoles, roleBindings, clusterRoleBindings} {
		for {
			watcher := x.watchers[resource]
			if watcher == nil {
				x.list(resource)
				break
			}
			events, err := watcher.Poll()
			if err != nil { // too much has happened since the last question
				watcher.Close()
				delete(x.watchers, resource)
				continue
			}
			if len(events) == 0 {
				break
			}
			for _, event := range events {
				x.take(event.Item, event.Type == store.Deleted)
			}
		}
	}
}

// list forgets what is known of a resource and begins anew.
func (x *Index) list(resource string) {
	for key := range x.roles {
		if key.Resource == resource {
			delete(x.roles, key)
		}
	}
	for key := range x.bindings {
		if key.Resource == resource {
			x.drop(key)
		}
	}
	items, _, watcher := x.from.ListAndWatch(resource, "")
	x.watchers[resource] = watcher
	for _, item := range items {
		x.take(item, false)
	}
}

// take takes in one object. One that does not decode grants nothing.
func (x *Index) take(item store.Item, deleted bool) {
	delete(x.roles, item.Key)
	x.drop(item.Key)
	if deleted {
		return
	}
	obj, ok := x.from.Object(item)
	if !ok {
		return
	}
	switch o := obj.(type) {
	case *rbacv1.Role:
		x.roles[item.Key] = o.Rules
	case *rbacv1.ClusterRole:
		x.roles[item.Key] = o.Rules
	case *rbacv1.RoleBinding:
		x.add(&binding{key: item.Key, ref: o.RoleRef, subjects: o.Subjects})
	case *rbacv1.ClusterRoleBinding:
		x.add(&binding{key: item.Key, ref: o.RoleRef, subjects: o.Subjects})
	}
}

func (x *Index) add(b *binding) {
	x.bindings[b.key] = b
	for i := range b.subjects {
		s, ok := subjectOf(&b.subjects[i], b.key.Namespace)
		if !ok || slices.Contains(x.subjects[s], b) {
			continue
		}
		at, _ := slices.BinarySearchFunc(x.subjects[s], b, func(have, b *binding) int { return strings.Compare(have.key.Name, b.key.Name) })
		x.subjects[s] = slices.Insert(x.subjects[s], at, b)
	}
}

func (x *Index) drop(key store.Key) {
	b := x.bindings[key]
	if b == nil {
		return
	}
	delete(x.bindings, key)
	for i := range b.subjects {
		s, ok := subjectOf(&b.subjects[i], key.Namespace)
		if !ok {
			continue
		}
		if left := slices.DeleteFunc(x.subjects[s], func(have *binding) bool { return have == b }); len(left) > 0 {
			x.subjects[s] = left
		} else {
			delete(x.subjects, s)
		}
	}
}

// subjectOf is a subject of a binding in a namespace; ok is false if it can be nobody. A service account without a namespace is one
// of the binding's own.
func subjectOf(s *rbacv1.Subject, namespace string) (found subject, ok bool) {
	switch s.Kind {
	case rbacv1.UserKind, rbacv1.GroupKind:
		return subject{namespace, s.Kind, s.Name}, true
	case rbacv1.ServiceAccountKind:
		of := s.Namespace
		if of == "" {
			of = namespace
		}
		return subject{namespace, rbacv1.UserKind, access.AccountUser(of, s.Name)}, of != ""
	}
	return subject{}, false
}

// describe tells by which of a binding's subjects it applies to a user, as upstream does.
func (b *binding) describe(u *access.User) string {
	kind, name := "ClusterRoleBinding", b.key.Name
	if b.key.Namespace != "" {
		kind, name = "RoleBinding", b.key.Name+"/"+b.key.Namespace
	}
	text := kind + " " + quote(name) + " of " + b.ref.Kind + " " + quote(b.ref.Name) + " to "
	for i := range b.subjects {
		s := &b.subjects[i]
		found, ok := subjectOf(s, b.key.Namespace)
		switch {
		case !ok, found.kind == rbacv1.UserKind && found.name != u.Name, found.kind == rbacv1.GroupKind && !u.In(found.name):
			continue
		case s.Kind == rbacv1.ServiceAccountKind:
			of := s.Namespace
			if of == "" {
				of = b.key.Namespace
			}
			return text + s.Kind + " " + quote(s.Name+"/"+of)
		}
		return text + s.Kind + " " + quote(s.Name)
	}
	return text + "nobody"
}

// roleKey is the role that a binding in a namespace refers to; ok is false if it can be none.
func roleKey(ref rbacv1.RoleRef, namespace string) (key store.Key, ok bool) {
	switch ref.Kind {
	case "ClusterRole":
		return store.Key{Resource: clusterRoles, Name: ref.Name}, true
	case "Role":
		return store.Key{Resource: roles, Namespace: namespace, Name: ref.Name}, namespace != ""
	}
	return store.Key{}, false
}
