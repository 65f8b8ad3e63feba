package api

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesv1defaults "k8s.io/kubernetes/pkg/apis/certificates/v1"
	"k8s.io/kubernetes/pkg/apis/certificates/validation"
)

func clusterTrustBundles() *Kind {
	return install[certificatesv1.ClusterTrustBundle](&Kind{
		GVK:           certificatesv1.SchemeGroupVersion.WithKind("ClusterTrustBundle"),
		Resource:      "clustertrustbundles",
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} },
		Columns:       []Column{nameColumn(), text("SignerName", certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"])},
	}, strategy[certificatesv1.ClusterTrustBundle, certificates.ClusterTrustBundle]{
		in:  certificatesv1defaults.Convert_v1_ClusterTrustBundle_To_certificates_ClusterTrustBundle,
		out: certificatesv1defaults.Convert_certificates_ClusterTrustBundle_To_v1_ClusterTrustBundle,
		fields: func(b *certificatesv1.ClusterTrustBundle) map[string]string {
			return map[string]string{"spec.signerName": b.Spec.SignerName}
		},
		row: func(b *certificatesv1.ClusterTrustBundle, _ time.Time) []any {
			return []any{b.Name, orElse(b.Spec.SignerName, "<none>")}
		},
		validate: func(n *certificates.ClusterTrustBundle) field.ErrorList {
			return validation.ValidateClusterTrustBundle(n, validation.ValidateClusterTrustBundleOptions{})
		},
		validateUpdate: validation.ValidateClusterTrustBundleUpdate,
		declared:       certificatesv1defaults.Validate_ClusterTrustBundle,
	})
}
