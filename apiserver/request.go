package apiserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/audit"
	"github.com/shoal-edge/shoal/apiserver/reviews"
	"github.com/shoal-edge/shoal/store"
)

// request is an HTTP request and what its path and method mean.
type request struct {
	*http.Request
	began   time.Time
	actor   *access.User // who acts as user; nil: user himself
	allowed bool
	auditID string
	user    user
	query   url.Values

	isResource bool
	gv         schema.GroupVersion
	resource   string
	namespace  string
	name       string
	sub        string
	path       string // what follows the subresource proxy, escaped as it came
	verb       string

	kind     *api.Kind // in the version asked for; nil when the resource is not served, or is a review
	review   *reviews.Review
	body     []byte // read once, so that a request can be tried again
	giveBack func() // the room that a large body has; nil: it is small
	warnings []string
	notes    map[string]string // what admission adds to the record of the request
	audited  *audit.Decision   // how it is recorded, once that was asked
	answered runtime.Object    // what it was answered with, if that is recorded
}

// done gives back what a request holds, once it is answered.
func (r *request) done() {
	if r.giveBack != nil {
		r.giveBack()
	}
}

// parse reads a request's path. It never fails: what it does not understand is simply not served.
func parse(r *http.Request) *request {
	req := &request{Request: r, began: time.Now(), query: r.URL.Query(), verb: strings.ToLower(r.Method)}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		req.gv, parts = schema.GroupVersion{Version: parts[1]}, parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		req.gv, parts = schema.GroupVersion{Group: parts[1], Version: parts[2]}, parts[3:]
	default:
		return req
	}
	req.isResource = true
	if parts[0] == "namespaces" && len(parts) > 2 && !slices.Contains([]string{"status", "finalize"}, parts[2]) {
		req.namespace, parts = parts[1], parts[2:]
	}
	req.resource = parts[0]
	if len(parts) > 1 {
		req.name = parts[1]
	}
	switch {
	case len(parts) > 2 && parts[2] == "proxy":
		req.sub, req.path = parts[2], behindProxy(r.URL, req.namespace != "", req.gv.Group != "")
	case len(parts) > 2:
		req.sub = strings.Join(parts[2:], "/")
	}
	req.verb = verbOf(r.Method, req.name, req.query)
	if review := reviews.Find(req.gv.WithResource(req.resource)); review != nil && review.Namespaced == (req.namespace != "") {
		req.review = review
	}
	if kind := api.ByGVR(req.gv.WithResource(req.resource)); kind != nil && req.scoped(kind) {
		req.kind = kind
	}
	return req
}

// behindProxy is the part of a path that is none of ours: what is asked of a pod or device.
func behindProxy(u *url.URL, namespaced, grouped bool) string {
	ours := len([]string{"", "api", "v1", "pods", "name", "proxy"})
	if grouped {
		ours++
	}
	if namespaced {
		ours += 2
	}
	segments := strings.SplitN(u.EscapedPath(), "/", ours+1)
	if len(segments) <= ours {
		return ""
	}
	return "/" + segments[ours]
}

// scoped reports whether the path names the resource in a way that its scope allows.
func (req *request) scoped(k *api.Kind) bool {
	if k.Namespaced {
		return req.namespace != "" || req.name == ""
	}
	return req.namespace == ""
}

func verbOf(method, name string, query url.Values) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		switch {
		case name != "":
			return "get"
		case isTrue(query.Get("watch")):
			return "watch"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return strings.ToLower(method)
}

// isTrue reads a boolean parameter the way upstream does: present without a value is true.
func isTrue(s string) bool { return s == "true" || s == "1" || s == "True" || s == "TRUE" || s == "t" }

func (req *request) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: req.gv.Group, Resource: req.resource}
}

func (req *request) key() store.Key {
	return store.Key{Resource: req.stored(), Namespace: req.namespace, Name: req.name}
}

// stored is the store's key of the resource, whatever version was asked for.
func (req *request) stored() string { return req.kind.Storage().GroupResource() }

func (req *request) isReview() bool { return req.review != nil }

// isStream reports whether the request is answered by a device, byte for byte.
func (req *request) isStream() bool {
	return slices.Contains([]string{"log", "exec", "attach", "portforward", "proxy"}, req.sub)
}

// isPart reports whether the subresource shows the whole object and writes a part of it.
func (req *request) isPart() bool {
	_, part := req.kind.Parts[req.sub]
	return part || req.sub == "status"
}

// longRunning requests have no time limit and do not count as in flight.
func (req *request) longRunning() bool {
	return req.isResource && (req.verb == "watch" || req.isStream())
}

// needsLeader reports whether only the leader can answer: it alone writes, holds the volatile kinds and has the devices.
func (req *request) needsLeader() bool {
	switch req.verb {
	case "get", "list", "watch":
	default:
		return !req.isReview()
	}
	if req.isStream() || req.isUsage() {
		return true
	}
	if custom.Converts(req.kind) {
		return true // a webhook may have to be asked, which devices are linked to the leader for
	}
	if req.kind == nil || req.kind.Class == nil {
		return false
	}
	return req.namespace == "" || req.kind.Class(req.namespace) == api.Volatile
}

// Warn and Note make the request a store.Hearer.
func (req *request) Warn(texts ...string) { req.warn(texts...) }

func (req *request) Note(key, value string) {
	if req.notes == nil {
		req.notes = map[string]string{}
	}
	req.notes[key] = value
}

func (req *request) warn(texts ...string) {
	for _, t := range texts {
		if !slices.Contains(req.warnings, t) {
			req.warnings = append(req.warnings, t)
		}
	}
}
