package api

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	storageapi "k8s.io/kubernetes/pkg/api/storage"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagev1defaults "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/apis/storage/validation"
)

func csiStorageCapacities() *Kind {
	doc := storagev1.CSIStorageCapacity{}.SwaggerDoc()
	return install[storagev1.CSIStorageCapacity](&Kind{
		GVK:           storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacity"),
		Resource:      "csistoragecapacities",
		Namespaced:    true,
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },
		Columns:       []Column{nameColumn(), text("StorageClassName", doc["storageClassName"]), text("Capacity", doc["capacity"])},
	}, strategy[storagev1.CSIStorageCapacity, storage.CSIStorageCapacity]{
		in:  storagev1defaults.Convert_v1_CSIStorageCapacity_To_storage_CSIStorageCapacity,
		out: storagev1defaults.Convert_storage_CSIStorageCapacity_To_v1_CSIStorageCapacity,
		row: func(c *storagev1.CSIStorageCapacity, _ time.Time) []any {
			capacity := "<unset>"
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		},
		validate: func(n *storage.CSIStorageCapacity) field.ErrorList {
			return validation.ValidateCSIStorageCapacity(n, validation.CSIStorageCapacityValidateOptions{})
		},
		validateUpdate: func(n, o *storage.CSIStorageCapacity) field.ErrorList {
			bad := len(metav1validation.ValidateLabelSelector(o.NodeTopology, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
			opts := validation.CSIStorageCapacityValidateOptions{AllowInvalidLabelValueInSelector: bad}
			return append(validation.ValidateCSIStorageCapacity(n, opts), validation.ValidateCSIStorageCapacityUpdate(n, o)...)
		},
		declared: storagev1defaults.Validate_CSIStorageCapacity,
		warn:     func(n, _ *storage.CSIStorageCapacity) []string { return storageapi.GetWarningsForCSIStorageCapacity(n) },
	})
}
