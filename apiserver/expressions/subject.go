//go:build cel

package expressions

import (
	"context"
	"encoding/json"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// Subject is a request as expressions see it.
type Subject struct {
	attributes *admission.VersionedAttributes
	request    *admissionv1.AdmissionRequest
	namespace  *corev1.Namespace
	authorizer authorizer.UnconditionalAuthorizer
}

// NewSubject shows a request in the version of kind. The authorizer answers the expressions that ask what somebody may do; nil allows nothing.
func NewSubject(r *matching.Request, kind *api.Kind, z access.Authorizer) (*Subject, error) {
	q, err := r.Review(kind)
	if err != nil {
		return nil, err
	}
	var shown [2]runtime.Object
	for i, raw := range []runtime.RawExtension{q.Object, q.OldObject} {
		if raw.Raw == nil {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := utiljson.Unmarshal(raw.Raw, &u.Object); err != nil {
			return nil, err
		}
		shown[i] = u
	}
	q.Object, q.OldObject, q.Options = runtime.RawExtension{}, runtime.RawExtension{}, runtime.RawExtension{} // variables of their own
	gvk := schema.GroupVersionKind(q.Kind)
	s := &Subject{
		request: q, authorizer: authorizes{z},
		attributes: &admission.VersionedAttributes{
			Attributes: admission.NewAttributesRecord(shown[0], shown[1], r.As.GVK, r.Namespace, r.Name, r.As.GVR(), r.Sub,
				admission.Operation(q.Operation), r.Options, r.DryRun, &user.DefaultInfo{Name: r.User.Name, UID: r.User.UID, Groups: r.User.Groups, Extra: r.User.Extra}),
			VersionedObject: admission.NewLazyObject(shown[0]), VersionedOldObject: admission.NewLazyObject(shown[1]), VersionedKind: gvk,
		},
	}
	if r.Namespace != "" {
		if namespace, ok := store.Get[corev1.Namespace](r.Reader, "", r.Namespace); ok {
			s.namespace = plugincel.CreateNamespaceObject(namespace)
		}
	}
	return s, nil
}

// content is the request's object as JSON. Nobody may change it.
func (s *Subject) content() map[string]any {
	return s.attributes.VersionedObject.Object().(*unstructured.Unstructured).Object
}

// replace makes the request one about another object.
func (s *Subject) replace(content map[string]any) {
	s.attributes.UpdateObject(&unstructured.Unstructured{Object: content})
}

// Object is the request's object as JSON, as changes have made it.
func (s *Subject) Object() ([]byte, error) { return json.Marshal(s.content()) }

// holds reports whether conditions hold of the request, given a policy's parameters.
func (c *Conditions) holds(ctx context.Context, s *Subject, params runtime.Object) (bool, error) {
	result := c.matcher.Match(ctx, s.attributes, params, s.authorizer)
	return result.Matches, result.Error
}

// authorizes is an authorizer as expressions ask it.
type authorizes struct{ access.Authorizer }

func (z authorizes) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if z.Authorizer == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	u := a.GetUser()
	asked := access.Attributes{User: &access.User{Name: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: u.GetExtra()}, Verb: a.GetVerb()}
	if a.IsResourceRequest() {
		asked.Resource, asked.Group, asked.Version, asked.Sub = a.GetResource(), a.GetAPIGroup(), a.GetAPIVersion(), a.GetSubresource()
		asked.Namespace, asked.Name = a.GetNamespace(), a.GetName()
	} else {
		asked.Path = a.GetPath()
	}
	allowed, reason := z.Authorizer.Authorize(ctx, &asked)
	if allowed {
		return authorizer.DecisionAllow, reason, nil
	}
	return authorizer.DecisionNoOpinion, reason, nil
}
