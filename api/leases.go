package api

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/coordination"
	coordinationv1conv "k8s.io/kubernetes/pkg/apis/coordination/v1"
	"k8s.io/kubernetes/pkg/apis/coordination/validation"
	"k8s.io/utils/ptr"
)

func leases() *Kind {
	return install[coordinationv1.Lease](&Kind{
		GVK:            coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		Resource:       "leases",
		Singular:       "lease",
		Namespaced:     true,
		Verbs:          crud(),
		CreateOnUpdate: true,
		NeedsRevision:  true,
		Class:          leaseClass,
		New:            func() Object { return &coordinationv1.Lease{} },
		NewList:        func() runtime.Object { return &coordinationv1.LeaseList{} },
		Columns:        []Column{nameColumn(), text("Holder", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]), ageColumn()},
		Row: func(o Object, now time.Time) []any {
			return []any{o.GetName(), ptr.Deref(o.(*coordinationv1.Lease).Spec.HolderIdentity, ""), age(o, now)}
		},
	}, strategy[coordinationv1.Lease, coordination.Lease]{
		in:  coordinationv1conv.Convert_v1_Lease_To_coordination_Lease,
		out: coordinationv1conv.Convert_coordination_Lease_To_v1_Lease,
		// Leases that elect a leader by strategy need a coordinator that shoal does not have.
		create: func(n *coordination.Lease) { n.Spec.Strategy, n.Spec.PreferredHolder = nil, nil },
		update: func(n, o *coordination.Lease) {
			if o.Spec.Strategy == nil {
				n.Spec.Strategy = nil
			}
			if o.Spec.PreferredHolder == nil {
				n.Spec.PreferredHolder = nil
			}
		},
		declared:       coordinationv1conv.Validate_Lease,
		validate:       validation.ValidateLease,
		validateUpdate: validation.ValidateLeaseUpdate,
	})
}

// leaseClass keeps heartbeats out of the log. Any other Lease is somebody's lock, and a lock must survive a fail-over.
func leaseClass(namespace string) Class {
	if namespace == corev1.NamespaceNodeLease {
		return Volatile
	}
	return Durable
}
