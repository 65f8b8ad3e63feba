package tokens

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// The life of a token, in seconds.
const (
	defaultLife  = 60 * 60
	shortestLife = 10 * 60
	longestLife  = 1 << 32
)

// Issue answers a TokenRequest for an account: it completes the request and fills in its status. Errors are API errors.
func (a *Authority) Issue(namespace, name string, r *authenticationv1.TokenRequest) error {
	account, ok := store.Get[corev1.ServiceAccount](a.cfg.Store, namespace, name)
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("serviceaccounts"), name)
	}
	if errs := a.complete(r, account); len(errs) > 0 {
		return apierrors.NewInvalid(requestKind(), name, errs)
	}
	if r.UID != account.UID {
		return apierrors.NewConflict(schema.GroupResource{Group: requestKind().Group, Resource: requestKind().Kind}, name, fmt.Errorf(
			"the UID in the token request (%s) does not match the UID of the service account (%s)", r.UID, account.UID))
	}
	now := a.cfg.Now()
	life := time.Duration(*r.Spec.ExpirationSeconds) * time.Second
	c := &claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: Issuer, Audience: r.Spec.Audiences, ID: uuid.NewString(),
			Subject:  "system:serviceaccount:" + namespace + ":" + name,
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(life)),
		},
		Kubernetes: bound{Namespace: namespace, Account: ref{name, account.UID}},
	}
	if err := a.bind(&c.Kubernetes, r.Spec.BoundObjectRef); err != nil {
		return err
	}
	token, err := a.sign(c)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	r.CreationTimestamp = metav1.NewTime(now)
	r.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(now.Add(life))}
	return nil
}

func requestKind() schema.GroupKind {
	return schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}
}

// complete fills in what a request leaves open, and checks the rest as upstream does.
func (a *Authority) complete(r *authenticationv1.TokenRequest, account *corev1.ServiceAccount) field.ErrorList {
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	if r.Name != "" && r.Name != account.Name {
		return field.ErrorList{field.Invalid(meta.Child("name"), r.Name, "must match the service account name if specified")}
	}
	if r.Namespace != "" && r.Namespace != account.Namespace {
		return field.ErrorList{field.Invalid(meta.Child("namespace"), r.Namespace, "must match the service account namespace if specified")}
	}
	r.Name, r.Namespace = account.Name, account.Namespace
	if r.UID == "" {
		r.UID = account.UID
	}
	if len(r.Spec.Audiences) == 0 {
		r.Spec.Audiences = []string{Issuer}
	}
	if r.Spec.ExpirationSeconds == nil {
		r.Spec.ExpirationSeconds = ptr.To[int64](defaultLife)
	}
	var errs field.ErrorList
	switch life := *r.Spec.ExpirationSeconds; {
	case life < shortestLife:
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), life, "may not specify a duration less than 10 minutes"))
	case life > longestLife:
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), life, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(r.Spec.Attestations) > 0 {
		errs = append(errs, field.Invalid(spec.Child("attestations"), r.Spec.Attestations,
			"attestations may only be specified with a webhook bound object reference"))
	}
	return errs
}

// bind binds a token to the object that the request names.
func (a *Authority) bind(b *bound, to *authenticationv1.BoundObjectReference) error {
	if to == nil {
		return nil
	}
	gvk := schema.FromAPIVersionAndKind(to.APIVersion, to.Kind)
	var object api.Object
	switch {
	case gvk.Group == "" && gvk.Kind == "Pod":
		pod, ok := store.Get[corev1.Pod](a.cfg.Store, b.Namespace, to.Name)
		if !ok {
			return apierrors.NewNotFound(corev1.Resource("pods"), to.Name)
		}
		if pod.Spec.ServiceAccountName != b.Account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf(
				"cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", b.Account.Name))
		}
		object, b.Pod = pod, &ref{pod.Name, pod.UID}
		if pod.Spec.NodeName != "" {
			b.Node = &ref{Name: pod.Spec.NodeName}
			if node, ok := store.Get[corev1.Node](a.cfg.Store, "", pod.Spec.NodeName); ok {
				b.Node.UID = node.UID
			}
		}
	case gvk.Group == "" && gvk.Kind == "Secret":
		secret, ok := store.Get[corev1.Secret](a.cfg.Store, b.Namespace, to.Name)
		if !ok {
			return apierrors.NewNotFound(corev1.Resource("secrets"), to.Name)
		}
		object, b.Secret = secret, &ref{secret.Name, secret.UID}
	case gvk.Group == "" && gvk.Kind == "Node":
		node, ok := store.Get[corev1.Node](a.cfg.Store, "", to.Name)
		if !ok {
			return apierrors.NewNotFound(corev1.Resource("nodes"), to.Name)
		}
		object, b.Node = node, &ref{node.Name, node.UID}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	if to.UID != "" && to.UID != object.GetUID() {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, to.Name, fmt.Errorf(
			"the UID in the bound object reference (%s) does not match the UID in record. "+
				"The object might have been deleted and then recreated", to.UID))
	}
	return nil
}

// sign makes the text of a token.
func (a *Authority) sign(c *claims) (string, error) {
	generation, _ := a.generations()
	k, err := a.key(generation)
	if err != nil {
		return "", err
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, c)
	token.Header["kid"] = k.id
	text, err := token.SignedString(k.private)
	if err != nil {
		return "", fmt.Errorf("tokens: sign: %w", err)
	}
	return text, nil
}
