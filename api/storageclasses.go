package api

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	storageapi "k8s.io/kubernetes/pkg/api/storage"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagev1defaults "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/apis/storage/validation"
	"k8s.io/utils/ptr"
)

// annotationDefaultStorageClass marks the class of claims that name none.
const annotationDefaultStorageClass = "storageclass.kubernetes.io/is-default-class"

// LocalPath is the provisioner of folders on the devices' own disks.
const LocalPath = "shoal.dev/local-path"

func storageClasses() *Kind {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return install[storagev1.StorageClass](&Kind{
		GVK:        storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		Resource:   "storageclasses",
		ShortNames: []string{"sc"},
		NewList:    func() runtime.Object { return &storagev1.StorageClassList{} },
		Columns: []Column{
			nameColumn(), text("Provisioner", doc["provisioner"]), text("ReclaimPolicy", doc["reclaimPolicy"]),
			text("VolumeBindingMode", doc["volumeBindingMode"]), text("AllowVolumeExpansion", doc["allowVolumeExpansion"]), ageColumn(),
		},
	}, strategy[storagev1.StorageClass, storage.StorageClass]{
		in:       storagev1defaults.Convert_v1_StorageClass_To_storage_StorageClass,
		out:      storagev1defaults.Convert_storage_StorageClass_To_v1_StorageClass,
		defaults: storagev1defaults.SetObjectDefaults_StorageClass,
		row:      storageClassRow,
		validate: validation.ValidateStorageClass,
		validateUpdate: func(n, o *storage.StorageClass) field.ErrorList {
			return append(validation.ValidateStorageClass(n), validation.ValidateStorageClassUpdate(n, o)...)
		},
		declared: storagev1defaults.Validate_StorageClass,
		warn:     func(n, _ *storage.StorageClass) []string { return storageapi.GetWarningsForStorageClass(n) },
	})
}

// storageClassRow marks every class that calls itself the default one: a row knows no other rows.
func storageClassRow(c *storagev1.StorageClass, now time.Time) []any {
	name := c.Name
	if c.Annotations[annotationDefaultStorageClass] == "true" {
		name += " (default)"
	}
	return []any{
		name, c.Provisioner, string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
		string(ptr.Deref(c.VolumeBindingMode, storagev1.VolumeBindingImmediate)), ptr.Deref(c.AllowVolumeExpansion, false), age(c, now),
	}
}
