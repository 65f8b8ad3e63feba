package apiserver

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Groups that have a meaning of their own.
const (
	groupMasters       = "system:masters"
	groupServers       = "system:shoal:servers"
	groupAuthenticated = "system:authenticated"
)

// Headers in which a server passes on who made a request.
const (
	headerRemoteUser   = "X-Remote-User"
	headerRemoteGroup  = "X-Remote-Group"
	headerAsUser       = "Impersonate-User"
	headerAsGroup      = "Impersonate-Group"
	headerAsOtherStart = "Impersonate-"
)

// user is who makes a request.
type user struct {
	name   string
	groups []string
	// forwarded: another server passed the request on, so that it goes no further.
	forwarded bool
}

func (u user) in(group string) bool { return slices.Contains(u.groups, group) }

// all reports whether the user may do everything.
func (u user) all() bool { return u.in(groupMasters) || u.in(groupServers) }

// authenticate takes the identity from the verified client certificate. Another server's word on who made a request counts,
// and administrators may act as somebody else.
func authenticate(r *http.Request) (user, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return user{}, apierrors.NewUnauthorized("Unauthorized")
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	u := user{name: subject.CommonName, groups: slices.Clone(subject.Organization)}
	if u.name == "" {
		return user{}, apierrors.NewUnauthorized("Unauthorized")
	}
	if name := r.Header.Get(headerRemoteUser); name != "" && u.in(groupServers) {
		return user{name: name, groups: slices.Clone(r.Header.Values(headerRemoteGroup)), forwarded: true}, nil
	}
	u.groups = authenticated(u.groups)
	return impersonate(r, u)
}

func impersonate(r *http.Request, u user) (user, error) {
	name := r.Header.Get(headerAsUser)
	for h := range r.Header {
		if strings.HasPrefix(h, headerAsOtherStart) && h != headerAsUser && (h != headerAsGroup || name == "") {
			return u, errBadRequest("the header %s is not supported, or lacks %s", h, headerAsUser)
		}
	}
	if name == "" {
		return u, nil
	}
	if !u.in(groupMasters) {
		return u, apierrors.NewForbidden(schema.GroupResource{Resource: "users"}, name,
			fmt.Errorf("User %q cannot impersonate resource %q in API group %q at the cluster scope", u.name, "users", "")) //nolint:staticcheck
	}
	return user{name: name, groups: authenticated(r.Header.Values(headerAsGroup))}, nil
}

func authenticated(groups []string) []string {
	if slices.Contains(groups, groupAuthenticated) {
		return groups
	}
	return append(slices.Clone(groups), groupAuthenticated)
}

// authorize decides whether the user may make the request.
func authorize(req *request) error {
	if req.user.all() {
		return nil
	}
	if !req.isResource {
		if openToAll(req.URL.Path) {
			return nil
		}
		return apierrors.NewForbidden(schema.GroupResource{}, "",
			fmt.Errorf("User %q cannot %s path %q", req.user.name, req.verb, req.URL.Path)) //nolint:staticcheck // upstream's wording
	}
	if req.isReview() {
		return nil
	}
	resource := req.resource
	if req.sub != "" {
		resource += "/" + req.sub
	}
	scope := "at the cluster scope"
	if req.namespace != "" {
		scope = fmt.Sprintf("in the namespace %q", req.namespace)
	}
	return apierrors.NewForbidden(req.groupResource(), req.name, fmt.Errorf( //nolint:staticcheck // upstream's wording
		"User %q cannot %s resource %q in API group %q %s", req.user.name, req.verb, resource, req.gv.Group, scope))
}

// openToAll are the paths that every known user may read.
func openToAll(path string) bool {
	for _, p := range []string{"/api", "/apis", "/openapi", "/version", "/livez", "/readyz", "/healthz"} {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return path == "/"
}
