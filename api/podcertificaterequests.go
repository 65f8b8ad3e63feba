package api

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesv1defaults "k8s.io/kubernetes/pkg/apis/certificates/v1"
	"k8s.io/kubernetes/pkg/apis/certificates/validation"
	"k8s.io/utils/clock"
)

func podCertificateRequests() *Kind {
	spec := certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()
	annotations := text("UnverifiedUserAnnotations", spec["unverifiedUserAnnotations"])
	annotations.Wide = true
	return install[certificatesv1.PodCertificateRequest](&Kind{
		GVK:           certificatesv1.SchemeGroupVersion.WithKind("PodCertificateRequest"),
		Resource:      "podcertificaterequests",
		Singular:      "podcertificaterequest",
		Namespaced:    true,
		Subresources:  []string{"status"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &certificatesv1.PodCertificateRequestList{} },
		Columns: []Column{
			nameColumn(), text("PodName", spec["podName"]), text("ServiceAccountName", spec["serviceAccountName"]), text("NodeName", spec["nodeName"]),
			text("SignerName", spec["signerName"]), text("State", "Is the request Pending, Issued, Denied, or Failed?"), annotations,
		},
	}, strategy[certificatesv1.PodCertificateRequest, certificates.PodCertificateRequest]{
		in:       certificatesv1defaults.Convert_v1_PodCertificateRequest_To_certificates_PodCertificateRequest,
		out:      certificatesv1defaults.Convert_certificates_PodCertificateRequest_To_v1_PodCertificateRequest,
		defaults: certificatesv1defaults.SetObjectDefaults_PodCertificateRequest,
		fields: func(r *certificatesv1.PodCertificateRequest) map[string]string {
			return map[string]string{"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
		},
		row: podCertificateRequestRow,
		create: func(n *certificates.PodCertificateRequest) {
			n.Status = certificates.PodCertificateRequestStatus{}
		},
		update: func(n, o *certificates.PodCertificateRequest) { n.Status = o.Status },
		status: func(n, o *certificates.PodCertificateRequest) {
			n.Spec = o.Spec
			metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &o.ObjectMeta)
		},
		validate:       validation.ValidatePodCertificateRequestCreate,
		validateUpdate: validation.ValidatePodCertificateRequestUpdate,
		validateStatus: func(n, o *certificates.PodCertificateRequest) field.ErrorList {
			return validation.ValidatePodCertificateRequestStatusUpdate(n, o, clock.RealClock{})
		},
		declared: certificatesv1defaults.Validate_PodCertificateRequest,
	})
}

func podCertificateRequestRow(r *certificatesv1.PodCertificateRequest, _ time.Time) []any {
	state := "Pending"
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied,
			certificatesv1.PodCertificateRequestConditionTypeFailed:
			state = c.Type
		}
	}
	return []any{
		r.Name, r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, state,
		labels.FormatLabels(r.Spec.UnverifiedUserAnnotations),
	}
}
