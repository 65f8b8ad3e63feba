package fieldmanager

import (
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/shoal-edge/shoal/api"
)

// kept are the exceptions from the rule of resetFilter, by resource and subresource, as upstream's strategies have them.
func kept() map[string][]fieldpath.Path {
	path := fieldpath.MakePathOrDie
	return map[string][]fieldpath.Path{
		"pods/status":             {path("spec"), path("metadata", "deletionTimestamp"), path("metadata", "ownerReferences")},
		"deployments.apps/status": {path("spec"), path("metadata", "labels")},
		"certificatesigningrequests.certificates.k8s.io/":         {path("spec"), path("status")},
		"certificatesigningrequests.certificates.k8s.io/status":   {path("spec"), path("status", "conditions")},
		"certificatesigningrequests.certificates.k8s.io/approval": {path("spec"), path("status", "certificate")},
		"servicecidrs.networking.k8s.io/status":                   {path("spec"), path("metadata")},
		"volumeattachments.storage.k8s.io/status":                 {path("spec"), path("metadata")},
	}
}

// resetFilter leaves out the fields that a write by this way does not change, so that it cannot own them: a write of the body
// does not touch the status, nor one of the status the body. Nil: it may own all.
func resetFilter(kind *api.Kind, sub string) fieldpath.Filter {
	paths, ok := kept()[kind.GroupResource()+"/"+sub]
	switch {
	case sub == "ephemeralcontainers":
		return fieldpath.NewIncludeMatcherFilter(fieldpath.MakePrefixMatcherOrDie("spec", "ephemeralContainers"))
	case sub == "resize":
		var fields []*fieldpath.SetMatcher
		for _, list := range []string{"containers", "initContainers"} {
			for _, name := range []string{"resources", "resizePolicy"} {
				fields = append(fields, fieldpath.MakePrefixMatcherOrDie("spec", list, fieldpath.MatchAnyPathElement(), name))
			}
		}
		return fieldpath.NewIncludeMatcherFilter(fields...)
	case ok:
	case sub == "status":
		paths = []fieldpath.Path{fieldpath.MakePathOrDie("spec")}
	case kind.HasSubresource("status"):
		paths = []fieldpath.Path{fieldpath.MakePathOrDie("status")}
	default:
		return nil
	}
	return fieldpath.NewExcludeSetFilter(fieldpath.NewSet(paths...))
}
