package apiserver

import (
	"context"
	"errors"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// paramGuard lets users name only such parameters of admission policies as they may read themselves: what a policy says of a request could tell
// what is in them.
func paramGuard(z *Authorizer) store.Admitter {
	return store.AdmitFunc(func(ctx context.Context, a *store.Admission) error {
		if a.Operation == store.OpDelete || a.Kind.GVK.Group != admissionregistrationv1.GroupName {
			return nil
		}
		if kind := paramKindOf(a.Object); kind != nil && !apiequality.Semantic.DeepEqual(kind, paramKindOf(a.Old)) {
			asked := z.paramsOf(kind)
			asked.Verb, asked.Namespace, asked.Name = "get", "*", "*"
			return z.mayRead(ctx, a, asked, "paramKind", func(user string) string {
				return fmt.Sprintf("user %s must have %q permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)",
					user, asked.Verb, kind.Kind, kind.APIVersion)
			})
		}
		policy, ref := paramRefOf(a.Object)
		if _, older := paramRefOf(a.Old); ref == nil || apiequality.Semantic.DeepEqual(ref, older) {
			return nil
		}
		asked := z.paramsOf(policyParams(a.Reader, a.Kind.Resource, policy))
		asked.Verb, asked.Namespace, asked.Name = "get", ref.Namespace, ref.Name
		if asked.Namespace == "" {
			asked.Namespace = "*"
		}
		if ref.Selector != nil {
			asked.Verb, asked.Name = "list", ""
		}
		return z.mayRead(ctx, a, asked, "paramRef", func(user string) string {
			return fmt.Sprintf("user %s does not have %q permission on the object referenced by paramRef", user, asked.Verb)
		})
	})
}

// paramsOf are the objects of the kind of a policy's parameters. Of one that is not known everything has to be allowed.
func (z *Authorizer) paramsOf(kind *admissionregistrationv1.ParamKind) *access.Attributes {
	asked := &access.Attributes{Group: "*", Version: "*", Resource: "*"}
	if kind == nil {
		return asked
	}
	gvk := schema.FromAPIVersionAndKind(kind.APIVersion, kind.Kind)
	asked.Group, asked.Version = gvk.Group, gvk.Version
	if known := KindOf(z.durable, gvk); known != nil {
		asked.Resource = known.Resource
	}
	return asked
}

func (z *Authorizer) mayRead(ctx context.Context, a *store.Admission, asked *access.Attributes, at string, why func(user string) string) error {
	if asked.User = access.FromContext(ctx); asked.User == nil {
		return errors.New("no user on context")
	}
	if allowed, _ := z.Authorize(ctx, asked); allowed {
		return nil
	}
	return apierrors.NewInvalid(a.Kind.GVK.GroupKind(), a.Object.GetName(), field.ErrorList{field.Forbidden(field.NewPath("spec", at), why(asked.User.Name))})
}

func paramKindOf(object any) *admissionregistrationv1.ParamKind {
	switch o := object.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		return o.Spec.ParamKind
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		return o.Spec.ParamKind
	}
	return nil
}

func paramRefOf(object any) (policy string, ref *admissionregistrationv1.ParamRef) {
	switch o := object.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		return o.Spec.PolicyName, o.Spec.ParamRef
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		return o.Spec.PolicyName, o.Spec.ParamRef
	}
	return "", nil
}

// policyParams is the kind of the parameters of the policy that a binding is of; nil if there is no such policy, or it takes none.
func policyParams(r store.Reader, binding, policy string) *admissionregistrationv1.ParamKind {
	if binding == "mutatingadmissionpolicybindings" {
		p, ok := store.Get[admissionregistrationv1.MutatingAdmissionPolicy](r, "", policy)
		if !ok {
			return nil
		}
		return p.Spec.ParamKind
	}
	p, ok := store.Get[admissionregistrationv1.ValidatingAdmissionPolicy](r, "", policy)
	if !ok {
		return nil
	}
	return p.Spec.ParamKind
}
