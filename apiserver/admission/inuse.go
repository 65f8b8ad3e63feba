package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// storageInUse gives what holds data a finalizer, by upstream's names: it stays until nobody uses it any more, which the
// controllers see.
func storageInUse() Plugin {
	return Plugin{Name: "StorageObjectInUseProtection", Admit: func(_ context.Context, a *store.Admission) error {
		if a.Operation != store.OpCreate || a.Subresource != "" {
			return nil
		}
		name := ""
		switch a.Object.(type) {
		case *corev1.PersistentVolumeClaim:
			name = api.ClaimInUse
		case *corev1.PersistentVolume:
			name = api.VolumeInUse
		case *storagev1.VolumeAttributesClass:
			name = api.VolumeAttributesClassInUse
		}
		if name != "" && !slices.Contains(a.Object.GetFinalizers(), name) {
			a.Object.SetFinalizers(append(a.Object.GetFinalizers(), name))
		}
		return nil
	}}
}
