package api

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagev1defaults "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/apis/storage/validation"
)

// csiNodes have a status in the type only: upstream serves it behind a feature gate that is off.
func csiNodes() *Kind {
	return install[storagev1.CSINode](&Kind{
		GVK:           storagev1.SchemeGroupVersion.WithKind("CSINode"),
		Resource:      "csinodes",
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &storagev1.CSINodeList{} },
		Columns: []Column{
			nameColumn(), integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"), ageColumn(),
		},
	}, strategy[storagev1.CSINode, storage.CSINode]{
		in:  storagev1defaults.Convert_v1_CSINode_To_storage_CSINode,
		out: storagev1defaults.Convert_storage_CSINode_To_v1_CSINode,
		row: func(n *storagev1.CSINode, now time.Time) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), age(n, now)}
		},
		create:         func(n *storage.CSINode) { n.Status = storage.CSINodeStatus{} },
		update:         func(n, o *storage.CSINode) { n.Status = o.Status },
		validate:       validation.ValidateCSINode,
		validateUpdate: validation.ValidateCSINodeUpdate,
		declared:       storagev1defaults.Validate_CSINode,
	})
}
