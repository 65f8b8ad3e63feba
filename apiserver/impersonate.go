package apiserver

import (
	"slices"
	"strings"

	"github.com/shoal-edge/shoal/apiserver/access"
)

// Headers in which a client says as whom it acts.
const (
	headerAsUser  = "Impersonate-User"
	headerAsUID   = "Impersonate-Uid"
	headerAsGroup = "Impersonate-Group"
	headerAsExtra = "Impersonate-Extra-"
	headerAsStart = "Impersonate-"
)

// impersonate makes the user whom the client acts as of the client, who must be allowed to impersonate every part of him: the name,
// each group, each extra value and the UID.
func (s *Server) impersonate(req *request) error {
	h := req.Header
	name := h.Get(headerAsUser)
	if name == "" {
		for header := range h {
			if strings.HasPrefix(header, headerAsStart) {
				return errBadRequest("requested %s without impersonating a user", header)
			}
		}
		return nil
	}
	actor := &req.user.User
	as := user{User: access.User{Name: name, Groups: slices.Clone(h.Values(headerAsGroup)), UID: h.Get(headerAsUID)}}
	var parts []access.Attributes
	if namespace, account, ok := access.SplitAccount(name); ok {
		parts = append(parts, access.Attributes{Resource: "serviceaccounts", Version: "v1", Namespace: namespace, Name: account})
		if len(as.Groups) == 0 {
			as.Groups = access.AccountGroups(namespace)
		}
	} else {
		parts = append(parts, access.Attributes{Resource: "users", Version: "v1", Name: name})
	}
	for _, group := range h.Values(headerAsGroup) {
		parts = append(parts, access.Attributes{Resource: "groups", Version: "v1", Name: group})
	}
	for header, values := range h {
		if extra, ok := strings.CutPrefix(header, headerAsExtra); ok {
			key := as.addExtra(extra, values...)
			for _, value := range values {
				parts = append(parts, access.Attributes{
					Group: "authentication.k8s.io", Version: "v1", Resource: "userextras", Sub: key, Name: value,
				})
			}
		}
	}
	if as.UID != "" {
		parts = append(parts, access.Attributes{Group: "authentication.k8s.io", Version: "v1", Resource: "uids", Name: as.UID})
	}
	for i := range parts {
		parts[i].User, parts[i].Verb = actor, "impersonate"
		if err := s.permit(req, &parts[i]); err != nil {
			return err
		}
	}
	as.addKnown()
	req.actor, req.user = actor.Clone(), as
	return nil
}

// addKnown adds the group of those who are known, or of those who are not, unless the client has said which.
func (u *user) addKnown() {
	switch {
	case u.Name == access.Anonymous && !u.in(access.Unauthenticated):
		u.Groups = append(u.Groups, access.Unauthenticated)
	case u.Name != access.Anonymous && !u.in(access.Authenticated) && !u.in(access.Unauthenticated):
		u.Groups = append(u.Groups, access.Authenticated)
	}
}
