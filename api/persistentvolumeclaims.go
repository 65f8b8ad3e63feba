package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	claimapi "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/utils/ptr"
)

func persistentVolumeClaims() *Kind {
	spec, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	return install[corev1.PersistentVolumeClaim](&Kind{
		GVK:          corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"),
		Resource:     "persistentvolumeclaims",
		ShortNames:   []string{"pvc"},
		Namespaced:   true,
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },
		Columns: []Column{
			nameColumn(), text("Status", status["phase"]), text("Volume", spec["volumeName"]), text("Capacity", status["capacity"]),
			text("Access Modes", status["accessModes"]), text("StorageClass", "StorageClass of the pvc"),
			text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"), ageColumn(), wide("VolumeMode", spec["volumeMode"]),
		},
	}, strategy[corev1.PersistentVolumeClaim, core.PersistentVolumeClaim]{
		in:       corev1defaults.Convert_v1_PersistentVolumeClaim_To_core_PersistentVolumeClaim,
		out:      corev1defaults.Convert_core_PersistentVolumeClaim_To_v1_PersistentVolumeClaim,
		defaults: corev1defaults.SetObjectDefaults_PersistentVolumeClaim,
		fields:   func(c *corev1.PersistentVolumeClaim) map[string]string { return map[string]string{"name": c.Name} },
		row:      persistentVolumeClaimRow,
		create: func(n *core.PersistentVolumeClaim) {
			n.Status = core.PersistentVolumeClaimStatus{}
			claimapi.DropDisabledFields(&n.Spec, nil)
			claimapi.EnforceDataSourceBackwardsCompatibility(&n.Spec, nil)
			claimapi.NormalizeDataSources(&n.Spec)
		},
		update: func(n, o *core.PersistentVolumeClaim) {
			n.Status = o.Status
			claimapi.DropDisabledFields(&n.Spec, &o.Spec)
			claimapi.EnforceDataSourceBackwardsCompatibility(&n.Spec, &o.Spec)
			claimapi.NormalizeDataSources(&n.Spec)
		},
		status: func(n, o *core.PersistentVolumeClaim) {
			n.Spec = o.Spec
			claimapi.DropDisabledFieldsFromStatus(n, o)
		},
		validate: func(n *core.PersistentVolumeClaim) field.ErrorList {
			return validation.ValidatePersistentVolumeClaim(n, validation.ValidationOptionsForPersistentVolumeClaim(n, nil))
		},
		validateUpdate: func(n, o *core.PersistentVolumeClaim) field.ErrorList {
			return validation.ValidatePersistentVolumeClaimUpdate(n, o, validation.ValidationOptionsForPersistentVolumeClaim(n, o))
		},
		validateStatus: func(n, o *core.PersistentVolumeClaim) field.ErrorList {
			return validation.ValidatePersistentVolumeClaimStatusUpdate(n, o, validation.ValidationOptionsForPersistentVolumeClaim(n, o))
		},
		declared: corev1defaults.Validate_PersistentVolumeClaim,
		warn: func(n, _ *core.PersistentVolumeClaim) []string {
			return claimapi.GetWarningsForPersistentVolumeClaim(n)
		},
	})
}

// persistentVolumeClaimRow shows a capacity and access modes once there is a volume.
func persistentVolumeClaimRow(c *corev1.PersistentVolumeClaim, now time.Time) []any {
	phase, capacity, modes := string(c.Status.Phase), "", ""
	if c.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	if c.Spec.VolumeName != "" {
		size := c.Status.Capacity[corev1.ResourceStorage]
		capacity, modes = size.String(), helper.GetAccessModesAsString(c.Status.AccessModes)
	}
	return []any{
		c.Name, phase, c.Spec.VolumeName, capacity, modes, storageClass(c, ptr.Deref(c.Spec.StorageClassName, "")),
		ptr.Deref(c.Spec.VolumeAttributesClassName, "<unset>"), age(c, now), string(ptr.Deref(c.Spec.VolumeMode, "<unset>")),
	}
}
