package apiserver

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/fields"

	"github.com/shoal-edge/shoal/apiserver/access"
)

// denialCheck bounds how long a server that does not lead makes sure that what it refuses by is not old.
const denialCheck = 2 * time.Second

// authorize decides whether the user may make the request. Nothing of the cluster is read for him before.
func (s *Server) authorize(req *request) error {
	for _, a := range req.asks() {
		if err := s.permit(req, &a); err != nil {
			return err
		}
	}
	return nil
}

// permit returns an error if something is not allowed. What was granted at another server a moment ago counts here too: before
// this server refuses, it reads all that has been acknowledged.
func (s *Server) permit(req *request, a *access.Attributes) error {
	allowed, reason := s.cfg.Authorizer.Authorize(req.Context(), a)
	if !allowed && !req.user.forwarded && !s.cfg.Consensus.IsLeader() {
		ctx, cancel := context.WithTimeout(req.Context(), denialCheck)
		defer cancel()
		if s.catchUp(ctx) == nil {
			allowed, reason = s.cfg.Authorizer.Authorize(req.Context(), a)
		}
	}
	if allowed {
		return nil
	}
	return access.Forbidden(a, reason)
}

// asks is what must be allowed for a request.
func (req *request) asks() []access.Attributes {
	if !req.isResource {
		return []access.Attributes{{User: &req.user.User, Verb: req.verb, Path: req.URL.Path}}
	}
	a := access.Attributes{
		User: &req.user.User, Verb: req.verb, Group: req.gv.Group, Version: req.gv.Version, Resource: req.resource, Sub: req.sub,
		Namespace: req.namespace, Name: req.name, Fields: req.query.Get("fieldSelector"), Labels: req.query.Get("labelSelector"),
	}
	switch {
	case a.Group == "" && a.Resource == "namespaces":
		a.Namespace = a.Name // who may read in a namespace may read of it
	case a.Name == "":
		a.Name = selectedName(a.Fields)
	}
	asked := []access.Attributes{a}
	if a.Verb == "get" && slices.Contains([]string{"exec", "attach", "portforward"}, a.Sub) {
		a.Verb = "create" // whichever way a client opens the stream, it acts in the pod
		asked = append(asked, a)
	}
	return asked
}

// selectedName is the one name that a field selector lets through, or empty.
func selectedName(selector string) string {
	if selector == "" {
		return ""
	}
	parsed, err := fields.ParseSelector(selector)
	if err != nil {
		return ""
	}
	name, _ := parsed.RequiresExactMatch("metadata.name")
	return name
}
