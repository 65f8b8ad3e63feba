package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// How long certificates of clients are valid: unless they ask for less, and at least.
const (
	clientLife    = 365 * 24 * time.Hour
	minClientLife = 10 * time.Minute
)

// addSigner signs the approved requests of the signer kubernetes.io/kube-apiserver-client. No other signer of kubernetes.io is served:
// devices have their certificates from their join.
func (c *Controllers) addSigner() {
	l := c.newLoop("signer", 1, c.signClient)
	c.follow(signingRequests, "", each(func(r *certificatesv1.CertificateSigningRequest, deleted bool) {
		if !deleted && toSign(r) {
			l.add(key(signingRequests, "", r.Name))
		}
	}))
}

// toSign reports whether a request is approved and has had no answer yet.
func toSign(r *certificatesv1.CertificateSigningRequest) bool {
	has := func(t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
	}
	return r.Spec.SignerName == certificatesv1.KubeAPIServerClientSignerName && len(r.Status.Certificate) == 0 &&
		has(certificatesv1.CertificateApproved) && !has(certificatesv1.CertificateDenied) && !has(certificatesv1.CertificateFailed)
}

func (c *Controllers) signClient(ctx context.Context, k store.Key) (time.Duration, error) {
	r, ok := store.Get[certificatesv1.CertificateSigningRequest](c.reader, "", k.Name)
	if !ok || !toSign(r) {
		return 0, nil
	}
	certificate, refused := c.certify(r)
	_, err := c.client.Modify(ctx, k, "status", func(obj api.Object) error {
		current := obj.(*certificatesv1.CertificateSigningRequest)
		switch {
		case current.UID != r.UID || !toSign(current):
			return errKeep
		case refused != nil:
			current.Status.Conditions = append(current.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
				Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure",
				Message: refused.Error(), LastUpdateTime: metav1.NewTime(c.now()),
			})
		default:
			current.Status.Certificate = certificate
		}
		return nil
	})
	return 0, ignoreGone(err)
}

func (c *Controllers) certify(r *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	isClient := false
	for _, u := range r.Spec.Usages {
		switch u {
		case certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment:
		case certificatesv1.UsageClientAuth:
			isClient = true
		default:
			return nil, fmt.Errorf("invalid usage for client certificate: %s", u)
		}
	}
	if !isClient {
		return nil, errors.New("missing required usage for client certificate: client auth")
	}
	life := clientLife
	if s := r.Spec.ExpirationSeconds; s != nil {
		life = min(clientLife, max(minClientLife, time.Duration(*s)*time.Second))
	}
	return c.cfg.SignClient(r.Spec.Request, r.Spec.Usages, life)
}
