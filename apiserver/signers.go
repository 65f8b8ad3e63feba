package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/certificates"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// signerGuard lets users approve, and sign, only the requests of signers that they may "approve" and "sign", say whom a signer trusts only if
// they may "attest" it, and refuses requests for
// certificates of administrators and of members of the cluster: those come from shoal itself.
func signerGuard(authorizer access.Authorizer) store.Admitter {
	return store.AdmitFunc(func(ctx context.Context, a *store.Admission) error {
		if a.Operation == store.OpDelete {
			return nil
		}
		if bundle, ok := a.Object.(*certificatesv1.ClusterTrustBundle); ok {
			return mayAttest(ctx, authorizer, a, bundle)
		}
		if r, ok := a.Object.(*certificatesv1.PodCertificateRequest); ok {
			return mayIssue(ctx, authorizer, a, r)
		}
		r, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
		if !ok {
			return nil
		}
		user := access.FromContext(ctx)
		if user == nil {
			return errors.New("no user on context")
		}
		older, _ := a.Old.(*certificatesv1.CertificateSigningRequest)
		switch a.Subresource {
		case "":
			return mayAsk(r)
		case "approval":
			if !mayServe(ctx, authorizer, user, "approve", older.Spec.SignerName) {
				return fmt.Errorf("user not permitted to approve requests with signerName %q", older.Spec.SignerName)
			}
		case "status":
			same := string(older.Status.Certificate) == string(r.Status.Certificate) &&
				apiequality.Semantic.DeepEqual(older.Status.Conditions, r.Status.Conditions)
			if !same && !mayServe(ctx, authorizer, user, "sign", older.Spec.SignerName) {
				return fmt.Errorf("user not permitted to sign requests with signerName %q", older.Spec.SignerName)
			}
		}
		return nil
	})
}

// mayAttest lets users say whom a signer trusts only if they may "attest" for it. That only the metadata changes is no such word.
func mayAttest(ctx context.Context, authorizer access.Authorizer, a *store.Admission, bundle *certificatesv1.ClusterTrustBundle) error {
	signer := bundle.Spec.SignerName
	if older, ok := a.Old.(*certificatesv1.ClusterTrustBundle); signer == "" || ok && older.Spec == bundle.Spec {
		return nil
	}
	user := access.FromContext(ctx)
	if user == nil {
		return errors.New("no user on context")
	}
	if !mayServe(ctx, authorizer, user, "attest", signer) {
		return fmt.Errorf("user not permitted to attest for signerName %q", signer)
	}
	return nil
}

// mayIssue lets users answer a pod's request for a certificate only if they may "sign" for the signer that it is addressed to.
func mayIssue(ctx context.Context, authorizer access.Authorizer, a *store.Admission, r *certificatesv1.PodCertificateRequest) error {
	older, ok := a.Old.(*certificatesv1.PodCertificateRequest)
	if !ok || a.Subresource != "status" || apiequality.Semantic.DeepEqual(older.Status, r.Status) {
		return nil
	}
	user := access.FromContext(ctx)
	if user == nil {
		return errors.New("no user on context")
	}
	if mayServe(ctx, authorizer, user, "sign", older.Spec.SignerName) {
		return nil
	}
	return apierrors.NewInvalid(a.Kind.GVK.GroupKind(), r.Name, field.ErrorList{field.Forbidden(field.NewPath("spec", "signerName"),
		fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", user.Name, older.Spec.SignerName))})
}

// mayServe asks for the signer itself, and for all of its domain.
func mayServe(ctx context.Context, authorizer access.Authorizer, user *access.User, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		allowed, _ := authorizer.Authorize(ctx, &access.Attributes{
			User: user, Verb: verb, Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Name: name,
		})
		if allowed {
			return true
		}
	}
	return false
}

func mayAsk(r *certificatesv1.CertificateSigningRequest) error {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	asked, err := certificates.ParseCSR(r.Spec.Request)
	if err != nil {
		return fmt.Errorf("failed to parse CSR: %w", err)
	}
	for _, group := range asked.Subject.Organization {
		if group == access.Masters || group == access.Nodes || strings.HasPrefix(group, "system:shoal:") {
			return fmt.Errorf("use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, group)
		}
	}
	return nil
}
