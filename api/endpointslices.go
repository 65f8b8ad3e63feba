package api

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryv1defaults "k8s.io/kubernetes/pkg/apis/discovery/v1"
	"k8s.io/kubernetes/pkg/apis/discovery/validation"
	"k8s.io/utils/ptr"
)

func endpointSlices() *Kind {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return install[discoveryv1.EndpointSlice](&Kind{
		GVK:        discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Resource:   "endpointslices",
		Namespaced: true,
		NewList:    func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Columns: []Column{
			nameColumn(), text("AddressType", doc["addressType"]), text("Ports", doc["ports"]), text("Endpoints", doc["endpoints"]), ageColumn(),
		},
	}, strategy[discoveryv1.EndpointSlice, discovery.EndpointSlice]{
		in:       discoveryv1defaults.Convert_v1_EndpointSlice_To_discovery_EndpointSlice,
		out:      discoveryv1defaults.Convert_discovery_EndpointSlice_To_v1_EndpointSlice,
		defaults: discoveryv1defaults.SetObjectDefaults_EndpointSlice,
		row:      endpointSliceRow,
		create: func(n *discovery.EndpointSlice) {
			n.Generation = 1
			dropTopology(n, nil)
		},
		update: func(n, o *discovery.EndpointSlice) {
			same := n.AddressType == o.AddressType && apiequality.Semantic.DeepEqual(n.Endpoints, o.Endpoints) &&
				apiequality.Semantic.DeepEqual(n.Ports, o.Ports) && apiequality.Semantic.DeepEqual(n.Labels, o.Labels)
			if !same {
				n.Generation = o.Generation + 1
			}
			dropTopology(n, o)
		},
		validate:       validation.ValidateEndpointSliceCreate,
		validateUpdate: validation.ValidateEndpointSliceUpdate,
		declared:       discoveryv1defaults.Validate_EndpointSlice,
		warn:           endpointSliceWarnings,
	})
}

// dropTopology removes the map that v1 replaced by fields. A node that only the map names moves to its field, as long as it
// was there before.
func dropTopology(n, o *discovery.EndpointSlice) {
	known := map[string]bool{}
	if o != nil {
		if apiequality.Semantic.DeepEqual(n.Endpoints, o.Endpoints) {
			return
		}
		for _, e := range o.Endpoints {
			if name := e.DeprecatedTopology[corev1.LabelHostname]; name != "" {
				known[name] = true
			}
		}
	}
	for i := range n.Endpoints {
		e := &n.Endpoints[i]
		name, named := e.DeprecatedTopology[corev1.LabelHostname]
		if e.NodeName == nil && named && known[name] && len(corevalidation.ValidateNodeName(name, false)) == 0 {
			e.NodeName = ptr.To(name)
		}
		e.DeprecatedTopology = nil
	}
}

func endpointSliceWarnings(n, o *discovery.EndpointSlice) []string {
	var w []string
	if o == nil && n.AddressType == discovery.AddressTypeFQDN {
		w = append(w, "spec.addressType: FQDN endpoints are deprecated")
	}
	own := []string{"endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"}
	if slices.Contains(own, n.Labels[discoveryv1.LabelManagedBy]) {
		return w
	}
	for i, e := range n.Endpoints {
		for j, address := range e.Addresses {
			path := field.NewPath("endpoints").Index(i).Child("addresses").Index(j)
			w = append(w, utilvalidation.GetWarningsForIP(path, address)...)
		}
	}
	return w
}

func endpointSliceRow(s *discoveryv1.EndpointSlice, now time.Time) []any {
	var ports, addresses []string
	for _, p := range s.Ports {
		switch {
		case p.Port != nil:
			ports = append(ports, strconv.Itoa(int(*p.Port)))
		default:
			ports = append(ports, ptr.Deref(p.Name, "*"))
		}
	}
	for _, e := range s.Endpoints {
		addresses = append(addresses, e.Addresses...)
	}
	return []any{s.Name, string(s.AddressType), orElse(listed(ports, 3), "<unset>"), orElse(listed(addresses, 3), "<unset>"), age(s, now)}
}
