// Package access owns the words in which it is asked and told who may do what: the user who makes a request, what he wants to
// do, and the answer. Those who decide (apiserver/rbac and others) and those who ask share it.
package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Users and groups that have a meaning of their own.
const (
	Masters         = "system:masters"
	Servers         = "system:shoal:servers"
	Nodes           = "system:nodes"
	Authenticated   = "system:authenticated"
	Unauthenticated = "system:unauthenticated"
	Anonymous       = "system:anonymous"
	ServiceAccounts = "system:serviceaccounts"
	Bootstrappers   = "system:bootstrappers"

	nodePrefix    = "system:node:"
	accountPrefix = "system:serviceaccount:"
)

// User is who makes a request.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// In reports whether the user is in a group.
func (u *User) In(group string) bool { return slices.Contains(u.Groups, group) }

// All reports whether the user may do everything, whatever the roles say: administrators and the servers themselves.
func (u *User) All() bool { return u.In(Masters) || u.In(Servers) }

// Node is the device that the user is.
func (u *User) Node() (name string, ok bool) {
	name, ok = strings.CutPrefix(u.Name, nodePrefix)
	return name, ok && name != "" && u.In(Nodes)
}

// Authenticate adds the group of everybody who is known.
func (u *User) Authenticate() {
	if !u.In(Authenticated) {
		u.Groups = append(slices.Clone(u.Groups), Authenticated)
	}
}

// Clone is a copy that shares nothing.
func (u *User) Clone() *User {
	c := &User{Name: u.Name, UID: u.UID, Groups: slices.Clone(u.Groups), Extra: maps.Clone(u.Extra)}
	for key, values := range c.Extra {
		c.Extra[key] = slices.Clone(values)
	}
	return c
}

// AccountUser is the name of a service account as a user.
func AccountUser(namespace, name string) string { return accountPrefix + namespace + ":" + name }

// AccountGroups are the groups of every service account of a namespace.
func AccountGroups(namespace string) []string {
	return []string{ServiceAccounts, ServiceAccounts + ":" + namespace}
}

// SplitAccount reads the name of AccountUser.
func SplitAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, accountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// Attributes is what a user wants to do: with a resource, or else with a path.
type Attributes struct {
	User *User
	Verb string

	Resource  string // empty: Path counts
	Group     string
	Version   string
	Sub       string
	Namespace string
	Name      string
	// Fields and Labels select objects of a list or watch, as the client wrote them. Empty: all.
	Fields, Labels string

	Path string
}

// Authorizer decides. The reason says why not, or what allows it; it may be empty.
type Authorizer interface {
	Authorize(ctx context.Context, a *Attributes) (allowed bool, reason string)
}

var sanitizer = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Forbidden is the error of a request that is not allowed, in upstream's words.
func Forbidden(a *Attributes, reason string) error {
	why := sanitizer.Replace(a.String())
	if reason != "" {
		why += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name, errors.New(why))
}

// String tells that the user cannot do it.
func (a *Attributes) String() string {
	if a.Resource == "" {
		return fmt.Sprintf("User %q cannot %s path %q", a.User.Name, a.Verb, a.Path)
	}
	resource, scope := a.Resource, "at the cluster scope"
	if a.Sub != "" {
		resource += "/" + a.Sub
	}
	if a.Namespace != "" {
		scope = fmt.Sprintf("in the namespace %q", a.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", a.User.Name, a.Verb, resource, a.Group, scope)
}

type contextKey struct{}

// WithUser returns a context that says on whose behalf something is done.
func WithUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, contextKey{}, u)
}

// FromContext returns the user on whose behalf something is done, or nil.
func FromContext(ctx context.Context) *User {
	u, _ := ctx.Value(contextKey{}).(*User)
	return u
}
