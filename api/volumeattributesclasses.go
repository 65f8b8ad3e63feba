package api

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagev1defaults "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/apis/storage/validation"
)

func volumeAttributesClasses() *Kind {
	return install[storagev1.VolumeAttributesClass](&Kind{
		GVK:        storagev1.SchemeGroupVersion.WithKind("VolumeAttributesClass"),
		Resource:   "volumeattributesclasses",
		ShortNames: []string{"vac"},
		NewList:    func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },
		Columns:    []Column{nameColumn(), text("DriverName", storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"]), ageColumn()},
	}, strategy[storagev1.VolumeAttributesClass, storage.VolumeAttributesClass]{
		in:  storagev1defaults.Convert_v1_VolumeAttributesClass_To_storage_VolumeAttributesClass,
		out: storagev1defaults.Convert_storage_VolumeAttributesClass_To_v1_VolumeAttributesClass,
		row: func(c *storagev1.VolumeAttributesClass, now time.Time) []any {
			return []any{c.Name, c.DriverName, age(c, now)}
		},
		validate:       validation.ValidateVolumeAttributesClass,
		validateUpdate: validation.ValidateVolumeAttributesClassUpdate,
		declared:       storagev1defaults.Validate_VolumeAttributesClass,
	})
}
