package api

import (
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagev1defaults "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/apis/storage/validation"
	"k8s.io/utils/ptr"
)

func csiDrivers() *Kind {
	spec := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return install[storagev1.CSIDriver](&Kind{
		GVK:           storagev1.SchemeGroupVersion.WithKind("CSIDriver"),
		Resource:      "csidrivers",
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &storagev1.CSIDriverList{} },
		Columns: []Column{
			nameColumn(), boolean("AttachRequired", spec["attachRequired"]), boolean("PodInfoOnMount", spec["podInfoOnMount"]),
			boolean("StorageCapacity", spec["storageCapacity"]), text("TokenRequests", spec["tokenRequests"]),
			boolean("RequiresRepublish", spec["requiresRepublish"]), text("Modes", spec["volumeLifecycleModes"]), ageColumn(),
		},
	}, strategy[storagev1.CSIDriver, storage.CSIDriver]{
		in:       storagev1defaults.Convert_v1_CSIDriver_To_storage_CSIDriver,
		out:      storagev1defaults.Convert_storage_CSIDriver_To_v1_CSIDriver,
		defaults: storagev1defaults.SetObjectDefaults_CSIDriver,
		row:      csiDriverRow,
		update: func(n, o *storage.CSIDriver) {
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		validate:       validation.ValidateCSIDriver,
		validateUpdate: validation.ValidateCSIDriverUpdate,
		declared:       storagev1defaults.Validate_CSIDriver,
		warn: func(n, o *storage.CSIDriver) []string {
			same := o != nil && apiequality.Semantic.DeepEqual(n.Spec.TokenRequests, o.Spec.TokenRequests)
			if same || len(n.Spec.TokenRequests) == 0 || n.Spec.ServiceAccountTokenInSecrets != nil {
				return nil
			}
			return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, " +
				"set to true to prevent possible logging of tokens in volume attributes"}
		},
	})
}

func csiDriverRow(d *storagev1.CSIDriver, now time.Time) []any {
	var modes, audiences []string
	for _, m := range d.Spec.VolumeLifecycleModes {
		modes = append(modes, string(m))
	}
	for _, r := range d.Spec.TokenRequests {
		audiences = append(audiences, r.Audience)
	}
	tokens := strings.Join(audiences, ",")
	if d.Spec.TokenRequests == nil {
		tokens = "<unset>"
	}
	return []any{
		d.Name, ptr.Deref(d.Spec.AttachRequired, true), ptr.Deref(d.Spec.PodInfoOnMount, false), ptr.Deref(d.Spec.StorageCapacity, false),
		tokens, ptr.Deref(d.Spec.RequiresRepublish, false), orNone(strings.Join(modes, ",")), age(d, now),
	}
}
