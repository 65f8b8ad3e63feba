package fieldmanager

import (
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/shoal-edge/shoal/api"
)

// kept are the exceptions from the rule of resetFields, by resource and subresource, as upstream's strategies have them.
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

// resetFields are the fields that a write by this way leaves as they are, so that it cannot own them: a write of the body does
// not touch the status, nor one of the status the body.
func resetFields(kind *api.Kind, sub string) []fieldpath.Path {
	if paths, ok := kept()[kind.GroupResource()+"/"+sub]; ok {
		return paths
	}
	switch {
	case sub == "status":
		return []fieldpath.Path{fieldpath.MakePathOrDie("spec")}
	case slices.Contains(kind.Subresources, "status"):
		return []fieldpath.Path{fieldpath.MakePathOrDie("status")}
	}
	return nil
}
