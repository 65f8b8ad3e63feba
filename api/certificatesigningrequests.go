package api

import (
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesv1defaults "k8s.io/kubernetes/pkg/apis/certificates/v1"
	"k8s.io/kubernetes/pkg/apis/certificates/validation"
)

func certificateSigningRequests() *Kind {
	spec, status := certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc(), certificatesv1.CertificateSigningRequestStatus{}.SwaggerDoc()
	return install[certificatesv1.CertificateSigningRequest](&Kind{
		GVK:          certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"),
		Resource:     "certificatesigningrequests",
		ShortNames:   []string{"csr"},
		Subresources: []string{"approval", "status"},
		NewList:      func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },
		Identify:     identifyRequester,
		Columns: []Column{
			nameColumn(), ageColumn(), text("SignerName", spec["signerName"]), text("Requestor", spec["request"]),
			text("RequestedDuration", spec["expirationSeconds"]), text("Condition", status["conditions"]),
		},
	}, strategy[certificatesv1.CertificateSigningRequest, certificates.CertificateSigningRequest]{
		in:  certificatesv1defaults.Convert_v1_CertificateSigningRequest_To_certificates_CertificateSigningRequest,
		out: certificatesv1defaults.Convert_certificates_CertificateSigningRequest_To_v1_CertificateSigningRequest,
		fields: func(r *certificatesv1.CertificateSigningRequest) map[string]string {
			return map[string]string{"spec.signerName": r.Spec.SignerName}
		},
		row: certificateSigningRequestRow,
		create: func(n *certificates.CertificateSigningRequest) {
			n.Status = certificates.CertificateSigningRequestStatus{}
		},
		update: func(n, o *certificates.CertificateSigningRequest) { n.Spec, n.Status = o.Spec, o.Status },
		status: func(n, o *certificates.CertificateSigningRequest) {
			n.Spec = o.Spec
			keepConditions(n, o, certificates.CertificateApproved)
			keepConditions(n, o, certificates.CertificateDenied)
			stampConditions(n, o)
		},
		validate:       validation.ValidateCertificateSigningRequestCreate,
		validateUpdate: validation.ValidateCertificateSigningRequestUpdate,
		validateStatus: validation.ValidateCertificateSigningRequestStatusUpdate,
		declared:       certificatesv1defaults.Validate_CertificateSigningRequest,
		parts: map[string]part[*certificates.CertificateSigningRequest]{"approval": {
			prepare: func(n, o *certificates.CertificateSigningRequest) {
				stampConditions(n, o)
				conditions := n.Status.Conditions
				n.Spec, n.Status = o.Spec, o.Status
				n.Status.Conditions = conditions
			},
			validate: validation.ValidateCertificateSigningRequestApprovalUpdate,
		}},
	})
}

// identifyRequester says in the request who made it: signers go by that.
func identifyRequester(o Object, asked authenticationv1.UserInfo) {
	spec := &o.(*certificatesv1.CertificateSigningRequest).Spec
	spec.Username, spec.UID, spec.Groups, spec.Extra = asked.Username, asked.UID, asked.Groups, nil
	for key, values := range asked.Extra {
		if spec.Extra == nil {
			spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		spec.Extra[key] = certificatesv1.ExtraValue(values)
	}
}

// keepConditions puts the older conditions of a type back in place of the newer ones, if there are as many.
func keepConditions(n, o *certificates.CertificateSigningRequest, t certificates.RequestConditionType) {
	was, is := conditionsOf(o, t), conditionsOf(n, t)
	if len(was) != len(is) {
		return
	}
	for i := range is {
		n.Status.Conditions[is[i]] = o.Status.Conditions[was[i]]
	}
}

func conditionsOf(r *certificates.CertificateSigningRequest, t certificates.RequestConditionType) []int {
	var at []int
	for i, c := range r.Status.Conditions {
		if c.Type == t {
			at = append(at, i)
		}
	}
	return at
}

// stampConditions says of each condition without times that it holds since now, or since it did before.
func stampConditions(n, o *certificates.CertificateSigningRequest) {
	now := metav1.Now()
	for i := range n.Status.Conditions {
		c := &n.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		before := slices.IndexFunc(o.Status.Conditions, func(old certificates.CertificateSigningRequestCondition) bool {
			return old.Type == c.Type && old.Status == c.Status && !old.LastTransitionTime.IsZero()
		})
		if before >= 0 {
			c.LastTransitionTime = o.Status.Conditions[before].LastTransitionTime
		}
	}
}

func certificateSigningRequestRow(r *certificatesv1.CertificateSigningRequest, now time.Time) []any {
	has := map[certificatesv1.RequestConditionType]bool{}
	for _, c := range r.Status.Conditions {
		has[c.Type] = true
	}
	state := "Pending"
	switch {
	case has[certificatesv1.CertificateDenied]:
		state = "Denied"
	case has[certificatesv1.CertificateApproved]:
		state = "Approved"
	}
	if has[certificatesv1.CertificateFailed] {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	lasting := "<none>"
	if s := r.Spec.ExpirationSeconds; s != nil {
		lasting = duration.HumanDuration(time.Duration(*s) * time.Second)
	}
	return []any{r.Name, age(r, now), orNone(r.Spec.SignerName), r.Spec.Username, lasting, state}
}
