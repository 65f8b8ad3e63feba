package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/shoal-edge/shoal/store"
)

// Both names of the annotation that makes a storage class the default.
const (
	isDefaultClass     = "storageclass.kubernetes.io/is-default-class"
	isDefaultClassBeta = "storageclass.beta.kubernetes.io/is-default-class"
)

// defaultStorageClass gives claims that name no class the default one, the newest should there be several.
func defaultStorageClass() Plugin {
	return Plugin{Name: "DefaultStorageClass", Admit: created(func(_ context.Context, a *store.Admission, claim *corev1.PersistentVolumeClaim) error {
		if _, named := claim.Annotations[corev1.BetaStorageClassAnnotation]; named || claim.Spec.StorageClassName != nil {
			return nil
		}
		classes := slices.DeleteFunc(store.List[storagev1.StorageClass](a.Reader, ""), func(c *storagev1.StorageClass) bool {
			return c.Annotations[isDefaultClass] != "true" && c.Annotations[isDefaultClassBeta] != "true"
		})
		if class := newest(classes); class != nil {
			claim.Spec.StorageClassName = &class.Name
		}
		return nil
	})}
}
