package apiserver

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/munnerz/goautoneg"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/apiserver/reviews"
)

// resource is one entry of discovery: a resource, a subresource or a review.
type resource struct {
	gv                   schema.GroupVersion
	name, singular, kind string
	of                   schema.GroupVersion // the kind's own group and version
	namespaced           bool
	verbs, short, groups []string
}

// catalogue is what is served, in the order that it is told.
type catalogue []resource

// add adds a kind and its subresources.
func (c *catalogue) add(k *api.Kind) {
	gv := k.GVK.GroupVersion()
	*c = append(*c, resource{
		gv: gv, name: k.Resource, singular: k.Singular, kind: k.GVK.Kind, of: gv, namespaced: k.Namespaced,
		verbs: k.Verbs, short: k.ShortNames, groups: k.Categories,
	})
	for _, sub := range slices.Sorted(slices.Values(k.Subresources)) {
		*c = append(*c, subresource(k, sub))
	}
}

func (c catalogue) sort() {
	slices.SortStableFunc(c, func(a, b resource) int {
		return cmp.Or(strings.Compare(a.gv.Group, b.gv.Group), version.CompareKubeAwareVersionStrings(b.gv.Version, a.gv.Version))
	})
}

// catalogue adds the defined kinds to the built-in ones.
func (s *Server) catalogue() catalogue {
	defined := s.customVersions()
	if len(defined) == 0 {
		return builtIn()
	}
	all := slices.Clone(builtIn())
	for _, v := range defined {
		all.add(v.Kind)
	}
	all.sort()
	return all
}

var builtIn = sync.OnceValue(func() catalogue {
	var all catalogue
	for _, k := range api.Served() {
		all.add(k)
	}
	for _, r := range reviews.All() {
		gv := r.GVK.GroupVersion()
		all = append(all, resource{
			gv: gv, name: r.Resource, singular: strings.ToLower(r.GVK.Kind), kind: r.GVK.Kind, of: gv, namespaced: r.Namespaced,
			verbs: []string{"create"},
		})
	}
	all = append(all, usageResources()...)
	all.sort()
	return all
})

func subresource(k *api.Kind, sub string) resource {
	gv := k.GVK.GroupVersion()
	r := resource{
		gv: gv, name: k.Resource + "/" + sub, kind: k.GVK.Kind, of: gv, namespaced: k.Namespaced, verbs: []string{"get", "patch", "update"},
	}
	switch sub {
	case "scale":
		r.kind, r.of = "Scale", scaleGVK().GroupVersion()
	case "binding":
		r.kind, r.verbs = "Binding", []string{"create"}
	case "eviction":
		r.kind, r.of, r.verbs = "Eviction", schema.GroupVersion{Group: "policy", Version: "v1"}, []string{"create"}
	case "token":
		r.kind, r.of, r.verbs = "TokenRequest", authenticationv1.SchemeGroupVersion, []string{"create"}
	case "finalize":
		r.verbs = []string{"update"}
	case "log":
		r.verbs = []string{"get"}
	case "proxy":
		r.kind, r.verbs = k.GVK.Kind+"ProxyOptions", []string{"create", "delete", "get", "patch", "update"}
	case "exec":
		r.kind, r.verbs = "PodExecOptions", []string{"create", "get"}
	case "attach":
		r.kind, r.verbs = "PodAttachOptions", []string{"create", "get"}
	case "portforward":
		r.kind, r.verbs = "PodPortForwardOptions", []string{"create", "get"}
	}
	return r
}

// groupVersions are the served ones, the core group left out; of a group, the version that clients should prefer comes first.
func (c catalogue) groupVersions() []schema.GroupVersion {
	var all []schema.GroupVersion
	for _, r := range c {
		if r.gv.Group != "" && !slices.Contains(all, r.gv) {
			all = append(all, r.gv)
		}
	}
	return all
}

func (s *Server) serveDiscovery(w http.ResponseWriter, req *request) error {
	path := strings.TrimSuffix(req.URL.Path, "/")
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var answer runtime.Object
	c := s.catalogue()
	switch {
	case path == "":
		return s.writePlain(w, req, metav1.RootPaths{Paths: c.rootPaths()})
	case (path == "/api" || path == "/apis") && wantsAggregated(req.Request):
		return s.serveAggregated(w, req, path == "/api")
	case path == "/api":
		answer = &metav1.APIVersions{
			TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
			ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: req.Host}},
		}
	case path == "/apis":
		list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, gv := range c.groupVersions() {
			if n := len(list.Groups); n == 0 || list.Groups[n-1].Name != gv.Group {
				list.Groups = append(list.Groups, *c.groupOf(gv.Group))
			}
		}
		answer = list
	case parts[0] == "apis" && len(parts) == 2:
		if group := c.groupOf(parts[1]); group != nil {
			group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			answer = group
		}
	case parts[0] == "api" && len(parts) == 2:
		answer = c.resourceList(schema.GroupVersion{Version: parts[1]})
	case parts[0] == "apis" && len(parts) == 3:
		answer = c.resourceList(schema.GroupVersion{Group: parts[1], Version: parts[2]})
	}
	if answer == nil || answer == (*metav1.APIResourceList)(nil) {
		return errNotFound()
	}
	out, err := negotiate(req.Request)
	if err != nil {
		return err
	}
	return s.writeObject(w, req, http.StatusOK, out, answer)
}

func (c catalogue) rootPaths() []string {
	paths := []string{
		discoveryPath, "/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", keysPath, "/readyz", "/version",
	}
	for _, gv := range c.groupVersions() {
		paths = append(paths, "/apis/"+gv.Group, "/apis/"+gv.String())
	}
	return slices.Compact(slices.Sorted(slices.Values(paths)))
}

// groupOf is nil when the group is not served.
func (c catalogue) groupOf(name string) *metav1.APIGroup {
	group := &metav1.APIGroup{Name: name}
	for _, gv := range c.groupVersions() {
		if gv.Group == name {
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version})
		}
	}
	if len(group.Versions) == 0 {
		return nil
	}
	group.PreferredVersion = group.Versions[0]
	return group
}

// resourceList is nil when the group and version are not served.
func (c catalogue) resourceList(gv schema.GroupVersion) *metav1.APIResourceList {
	list := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, r := range c {
		if r.gv != gv {
			continue
		}
		entry := metav1.APIResource{
			Name: r.name, SingularName: r.singular, Namespaced: r.namespaced, Kind: r.kind, Verbs: r.verbs,
			ShortNames: r.short, Categories: r.groups,
		}
		if r.of != gv {
			entry.Group, entry.Version = r.of.Group, r.of.Version
		}
		list.APIResources = append(list.APIResources, entry)
	}
	if len(list.APIResources) == 0 {
		return nil
	}
	return list
}

// wantsAggregated reports whether a client prefers all of discovery in one answer.
func wantsAggregated(r *http.Request) bool {
	for _, clause := range goautoneg.ParseAccept(strings.Join(r.Header.Values("Accept"), ",")) {
		if clause.Type+"/"+clause.SubType != mediaJSON {
			continue
		}
		p := clause.Params
		return p["g"] == "apidiscovery.k8s.io" && p["v"] == "v2" && p["as"] == "APIGroupDiscoveryList"
	}
	return false
}

func (s *Server) serveAggregated(w http.ResponseWriter, req *request, core bool) error {
	d, err := s.discovery.document(core, s.customVersions(), s.catalogue)
	if err != nil {
		return err
	}
	w.Header().Set("Etag", d.etag)
	w.Header().Set("Vary", "Accept")
	if req.Header.Get("If-None-Match") == d.etag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	s.begin(w, req, http.StatusOK, mediaJSON+";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	_, _ = w.Write(d.data) // the client has gone: there is nobody to tell
	return nil
}

// discovered keeps the documents of aggregated discovery, which every kubectl asks for, until the defined kinds change. It has none
// before anybody asks.
type discovered struct {
	mu        sync.Mutex
	defined   []*custom.Version          // that the documents are of
	documents map[bool]discoveryDocument // of the core group, and of the others
}

type discoveryDocument struct {
	data []byte
	etag string
}

func (d *discovered) document(core bool, defined []*custom.Version, all func() catalogue) (discoveryDocument, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.documents == nil || !slices.Equal(d.defined, defined) { // a definition that changes is another one
		d.defined, d.documents = defined, map[bool]discoveryDocument{}
	}
	if made, ok := d.documents[core]; ok {
		return made, nil
	}
	data, err := json.Marshal(all().aggregated(core))
	if err != nil {
		return discoveryDocument{}, err
	}
	sum := sha256.Sum256(data)
	made := discoveryDocument{append(data, '\n'), `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`}
	d.documents[core] = made
	return made, nil
}

// aggregated is discovery in one piece: of the core group, or of all the others.
func (c catalogue) aggregated(core bool) *apidiscoveryv2.APIGroupDiscoveryList {
	list := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"},
	}
	for _, r := range c {
		if core != (r.gv.Group == "") {
			continue
		}
		if n := len(list.Items); n == 0 || list.Items[n-1].Name != r.gv.Group {
			list.Items = append(list.Items, apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: r.gv.Group}})
		}
		group := &list.Items[len(list.Items)-1]
		if n := len(group.Versions); n == 0 || group.Versions[n-1].Version != r.gv.Version {
			group.Versions = append(group.Versions, apidiscoveryv2.APIVersionDiscovery{
				Version: r.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent,
			})
		}
		here := &group.Versions[len(group.Versions)-1]
		kind := &metav1.GroupVersionKind{Group: r.of.Group, Version: r.of.Version, Kind: r.kind}
		if _, sub, isSub := strings.Cut(r.name, "/"); isSub {
			parent := &here.Resources[len(here.Resources)-1]
			parent.Subresources = append(parent.Subresources, apidiscoveryv2.APISubresourceDiscovery{
				Subresource: sub, ResponseKind: kind, Verbs: r.verbs,
			})
			continue
		}
		scope := apidiscoveryv2.ScopeCluster
		if r.namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		here.Resources = append(here.Resources, apidiscoveryv2.APIResourceDiscovery{
			Resource: r.name, ResponseKind: kind, Scope: scope, SingularResource: r.singular, Verbs: r.verbs,
			ShortNames: r.short, Categories: r.groups,
		})
	}
	return list
}
