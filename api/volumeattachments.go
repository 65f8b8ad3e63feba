package api

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagev1defaults "k8s.io/kubernetes/pkg/apis/storage/v1"
	"k8s.io/kubernetes/pkg/apis/storage/validation"
	"k8s.io/utils/ptr"
)

func volumeAttachments() *Kind {
	spec := storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	return install[storagev1.VolumeAttachment](&Kind{
		GVK:           storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"),
		Resource:      "volumeattachments",
		Subresources:  []string{"status"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &storagev1.VolumeAttachmentList{} },
		Columns: []Column{
			nameColumn(),
			{Name: "Attacher", Type: "string", Format: "name", Description: spec["attacher"]},
			text("PV", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]), text("Node", spec["nodeName"]),
			boolean("Attached", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]), ageColumn(),
		},
	}, strategy[storagev1.VolumeAttachment, storage.VolumeAttachment]{
		in:       storagev1defaults.Convert_v1_VolumeAttachment_To_storage_VolumeAttachment,
		out:      storagev1defaults.Convert_storage_VolumeAttachment_To_v1_VolumeAttachment,
		defaults: storagev1defaults.SetObjectDefaults_VolumeAttachment,
		row: func(a *storagev1.VolumeAttachment, now time.Time) []any {
			volume := ptr.Deref(a.Spec.Source.PersistentVolumeName, "")
			return []any{a.Name, a.Spec.Attacher, volume, a.Spec.NodeName, a.Status.Attached, age(a, now)}
		},
		create: func(n *storage.VolumeAttachment) { n.Status = storage.VolumeAttachmentStatus{} },
		update: func(n, o *storage.VolumeAttachment) { n.Status = o.Status },
		status: func(n, o *storage.VolumeAttachment) {
			n.Spec = o.Spec
			metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &o.ObjectMeta)
		},
		validate:       validation.ValidateVolumeAttachment,
		validateUpdate: validation.ValidateVolumeAttachmentUpdate,
		validateStatus: validation.ValidateVolumeAttachmentUpdate,
		declared:       storagev1defaults.Validate_VolumeAttachment,
	})
}
