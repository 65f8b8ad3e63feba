package apiserver

import (
	"fmt"
	"slices"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// When it is that an owner is found to be named twice; upstream looks at a patched object later than at a sent one.
const (
	whenSent    = ""
	whenPatched = " after mutating admission happens"
)

// singleOwners takes the owners away that an object names twice, and tells the client so.
func singleOwners(req *request, obj metav1.Object, when string) {
	if len(obj.GetOwnerReferences()) < 2 {
		return
	}
	var single []metav1.OwnerReference
	var twice []string
	seen := map[types.UID]bool{}
	for _, ref := range obj.GetOwnerReferences() {
		same := func(r metav1.OwnerReference) bool { return apiequality.Semantic.DeepEqual(r, ref) }
		if seen[ref.UID] && slices.ContainsFunc(single, same) {
			twice = append(twice, string(ref.UID))
			continue
		}
		seen[ref.UID], single = true, append(single, ref)
	}
	if len(twice) == 0 {
		return
	}
	obj.SetOwnerReferences(single)
	req.warn(fmt.Sprintf(".metadata.ownerReferences contains duplicate entries%s; API server dedups owner references in 1.20+, and may reject "+
		"such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v", when, strings.Join(twice, ", ")))
}
