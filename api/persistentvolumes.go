package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	volumeapi "k8s.io/kubernetes/pkg/api/persistentvolume"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	volumevalidation "k8s.io/kubernetes/pkg/volume/validation"
	"k8s.io/utils/ptr"
)

func persistentVolumes() *Kind {
	spec, status := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return install[corev1.PersistentVolume](&Kind{
		GVK:          corev1.SchemeGroupVersion.WithKind("PersistentVolume"),
		Resource:     "persistentvolumes",
		ShortNames:   []string{"pv"},
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &corev1.PersistentVolumeList{} },
		Columns: []Column{
			nameColumn(), text("Capacity", spec["capacity"]), text("Access Modes", spec["accessModes"]),
			text("Reclaim Policy", spec["persistentVolumeReclaimPolicy"]), text("Status", status["phase"]), text("Claim", spec["claimRef"]),
			text("StorageClass", "StorageClass of the pv"), text("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
			text("Reason", status["reason"]), ageColumn(), wide("VolumeMode", spec["volumeMode"]),
		},
	}, strategy[corev1.PersistentVolume, core.PersistentVolume]{
		in:       corev1defaults.Convert_v1_PersistentVolume_To_core_PersistentVolume,
		out:      corev1defaults.Convert_core_PersistentVolume_To_v1_PersistentVolume,
		defaults: corev1defaults.SetObjectDefaults_PersistentVolume,
		fields:   func(v *corev1.PersistentVolume) map[string]string { return map[string]string{"name": v.Name} },
		row:      persistentVolumeRow,
		create: func(n *core.PersistentVolume) {
			n.Status = core.PersistentVolumeStatus{Phase: core.VolumePending, LastPhaseTransitionTime: ptr.To(n.CreationTimestamp)}
			volumeapi.DropDisabledSpecFields(&n.Spec, nil)
		},
		update: func(n, o *core.PersistentVolume) {
			n.Status = o.Status
			volumeapi.DropDisabledSpecFields(&n.Spec, &o.Spec)
		},
		status: preparePersistentVolumeStatus,
		validate: func(n *core.PersistentVolume) field.ErrorList {
			return validatePersistentVolume(n, validation.ValidationOptionsForPersistentVolume(n, nil))
		},
		validateUpdate: func(n, o *core.PersistentVolume) field.ErrorList {
			opts := validation.ValidationOptionsForPersistentVolume(n, o)
			return append(validatePersistentVolume(n, opts), validation.ValidatePersistentVolumeUpdate(n, o, opts)...)
		},
		validateStatus: validation.ValidatePersistentVolumeStatusUpdate,
		declared:       corev1defaults.Validate_PersistentVolume,
		warn:           func(n, _ *core.PersistentVolume) []string { return volumeapi.GetWarningsForPersistentVolume(n) },
	})
}

func validatePersistentVolume(v *core.PersistentVolume, opts validation.PersistentVolumeSpecValidationOptions) field.ErrorList {
	return append(validation.ValidatePersistentVolume(v, opts), volumevalidation.ValidatePersistentVolume(v)...)
}

// preparePersistentVolumeStatus notes when the phase changed, unless the client says it.
func preparePersistentVolumeStatus(n, o *core.PersistentVolume) {
	n.Spec = o.Spec
	at, before := n.Status.LastPhaseTransitionTime, o.Status.LastPhaseTransitionTime
	switch {
	case n.Status.Phase == o.Status.Phase && at == nil:
		n.Status.LastPhaseTransitionTime = before
	case n.Status.Phase != o.Status.Phase && (at == nil || at.Equal(before)):
		n.Status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

func persistentVolumeRow(v *corev1.PersistentVolume, now time.Time) []any {
	claim, phase := "", string(v.Status.Phase)
	if ref := v.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	if v.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	size := v.Spec.Capacity[corev1.ResourceStorage]
	return []any{
		v.Name, size.String(), helper.GetAccessModesAsString(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase,
		claim, storageClass(v, v.Spec.StorageClassName), ptr.Deref(v.Spec.VolumeAttributesClassName, "<unset>"), v.Status.Reason, age(v, now),
		string(ptr.Deref(v.Spec.VolumeMode, "<unset>")),
	}
}

// storageClass is the class that a volume or a claim names, in an annotation as it once was, or in its spec.
func storageClass(o metav1.Object, inSpec string) string {
	if class, ok := o.GetAnnotations()[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	return inSpec
}
