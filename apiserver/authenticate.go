package apiserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/apiserver/access"
)

// Groups that have a meaning of their own.
const (
	groupMasters = access.Masters
	groupServers = access.Servers
)

// Headers in which a server passes on who made a request.
const (
	headerRemoteUser  = "X-Remote-User"
	headerRemoteUID   = "X-Remote-Uid"
	headerRemoteGroup = "X-Remote-Group"
	headerRemoteExtra = "X-Remote-Extra-"
)

// user is who makes a request.
type user struct {
	access.User
	// forwarded: another server passed the request on, so that it goes no further.
	forwarded bool
}

func (u *user) in(group string) bool { return u.In(group) }

func errUnauthorized() error { return apierrors.NewUnauthorized("Unauthorized") }

// authenticate takes the identity from the verified client certificate or, without one, from a bearer token. Another server's word
// on who made a request counts.
func (s *Server) authenticate(r *http.Request) (user, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return s.authenticateBearer(r)
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	u := user{User: access.User{Name: subject.CommonName, Groups: slices.Clone(subject.Organization)}}
	if u.Name == "" {
		return user{}, errUnauthorized()
	}
	if r.Header.Get(headerRemoteUser) != "" && u.in(groupServers) {
		return remoteUser(r.Header), nil
	}
	u.Authenticate()
	return u, nil
}

// remoteUser is who another server says that the user is. setRemoteUser says it.
func remoteUser(h http.Header) user {
	u := user{forwarded: true, User: access.User{
		Name: h.Get(headerRemoteUser), UID: h.Get(headerRemoteUID), Groups: slices.Clone(h.Values(headerRemoteGroup)),
	}}
	for name, values := range h {
		if key, ok := strings.CutPrefix(name, headerRemoteExtra); ok {
			u.addExtra(key, values...)
		}
	}
	return u
}

func setRemoteUser(h http.Header, u *access.User) {
	dropUser(h)
	h.Set(headerRemoteUser, u.Name)
	h[headerRemoteGroup] = u.Groups
	if u.UID != "" {
		h.Set(headerRemoteUID, u.UID)
	}
	for key, values := range u.Extra {
		for _, value := range values {
			h.Add(headerRemoteExtra+url.PathEscape(key), value)
		}
	}
}

// dropUser takes everything out of a request by which its client says who it is.
func dropUser(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, headerAsStart) || strings.HasPrefix(name, "X-Remote-") || name == "Authorization" {
			h.Del(name)
		}
	}
}

// addExtra adds values under a key as a header names it: in any case, and escaped.
func (u *user) addExtra(header string, values ...string) (key string) {
	key = strings.ToLower(header)
	if plain, err := url.PathUnescape(key); err == nil {
		key = plain
	}
	if u.Extra == nil {
		u.Extra = map[string][]string{}
	}
	u.Extra[key] = append(u.Extra[key], values...)
	return key
}
