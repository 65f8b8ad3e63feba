package webhooks

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// request is what webhooks are asked about.
type request struct {
	operation       store.Operation
	as              *api.Kind // in the version that its author speaks
	sub             string
	namespace, name string
	object, old     api.Object // in the version that is stored; nil where there is none
	options         runtime.Object
	dryRun          bool
	user            *access.User
	reader          store.Reader
	hear            store.Hearer
	scale           func(api.Object) (runtime.Object, error)
}

// inside is who the server's own controllers are to webhooks: what they are called where they are a process of their own.
var inside = &access.User{Name: "system:kube-controller-manager", Groups: []string{"system:authenticated"}}

func (c *Caller) newRequest(ctx context.Context, a *store.Admission) *request {
	user := access.FromContext(ctx)
	if user == nil {
		user = inside
	}
	r := &request{
		operation: a.Operation, as: a.As, sub: a.Subresource, object: a.Object, old: a.Old, dryRun: a.DryRun, user: user, reader: a.Reader, hear: a,
		scale: c.cfg.Scale,
	}
	r.namespace, r.name = r.subject().GetNamespace(), r.subject().GetName()
	var dryRun []string
	if a.DryRun {
		dryRun = []string{metav1.DryRunAll}
	}
	gv := metav1.SchemeGroupVersion.String()
	switch a.Operation {
	case store.OpCreate:
		r.options = &metav1.CreateOptions{TypeMeta: metav1.TypeMeta{Kind: "CreateOptions", APIVersion: gv}, DryRun: dryRun}
	case store.OpUpdate:
		r.options = &metav1.UpdateOptions{TypeMeta: metav1.TypeMeta{Kind: "UpdateOptions", APIVersion: gv}, DryRun: dryRun}
	case store.OpDelete:
		r.options = &metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: gv}, DryRun: dryRun}
	}
	return r
}

// subject is the object as it shall be, or as it was.
func (r *request) subject() api.Object {
	if r.object != nil {
		return r.object
	}
	return r.old
}

// review makes the question in the version in which the webhook wants to see the object.
func (r *request) review(h *hook, kind *api.Kind) (*admissionv1.AdmissionReview, error) {
	q := &admissionv1.AdmissionRequest{
		UID:             types.UID(uuid.NewString()),
		Kind:            metav1.GroupVersionKind(kind.GVK),
		Resource:        metav1.GroupVersionResource(kind.GVR()),
		SubResource:     r.sub,
		RequestKind:     (*metav1.GroupVersionKind)(&r.as.GVK),
		RequestResource: &metav1.GroupVersionResource{Group: r.as.GVK.Group, Version: r.as.GVK.Version, Resource: r.as.Resource},

		RequestSubResource: r.sub,
		Name:               r.name,
		Namespace:          r.namespace,
		Operation:          admissionv1.Operation(r.operation),
		UserInfo:           authenticationv1.UserInfo{Username: r.user.Name, UID: r.user.UID, Groups: r.user.Groups},
		DryRun:             &r.dryRun,
	}
	for key, values := range r.user.Extra {
		if q.UserInfo.Extra == nil {
			q.UserInfo.Extra = map[string]authenticationv1.ExtraValue{}
		}
		q.UserInfo.Extra[key] = values
	}
	shown := []struct {
		obj  runtime.Object
		into *runtime.RawExtension
	}{{nil, &q.Object}, {nil, &q.OldObject}, {r.options, &q.Options}}
	if r.operation == store.OpConnect {
		shown[0].obj, shown[2].obj = r.options, nil
	}
	for i, obj := range []api.Object{r.object, r.old} {
		if obj == nil {
			continue
		}
		var err error
		if shown[i].obj, err = r.shape(kind, obj); err != nil {
			return nil, err
		}
	}
	for _, s := range shown {
		if s.obj == nil {
			continue
		}
		var err error
		if s.into.Raw, err = json.Marshal(s.obj); err != nil {
			return nil, err
		}
	}
	if r.operation == store.OpConnect || r.shaped() {
		gvk := shown[0].obj.GetObjectKind().GroupVersionKind()
		q.Kind, q.RequestKind = metav1.GroupVersionKind(gvk), (*metav1.GroupVersionKind)(&gvk)
	}
	if r.shaped() && r.sub == "binding" {
		q.Operation, q.OldObject.Raw = admissionv1.Create, nil
	}
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: admissionv1.GroupName + "/" + h.reviewVersion()}, Request: q,
	}, nil
}

// reviewVersion is the first version of AdmissionReview that the webhook knows and this package, too. Both have the same fields here.
func (h *hook) reviewVersion() string {
	for _, v := range h.AdmissionReviewVersions {
		if v == "v1" || v == "v1beta1" {
			return v
		}
	}
	return "v1" // validation wants one of them
}

// shaped reports whether the subresource is an object of another kind.
func (r *request) shaped() bool { return r.sub == "scale" || r.sub == "binding" }

// shape is a stored object as the webhook is to see it: in the version that it wants, or as the subresource that was written.
func (r *request) shape(kind *api.Kind, obj api.Object) (runtime.Object, error) {
	switch r.sub {
	case "scale":
		return r.scale(obj)
	case "binding":
		return &corev1.Binding{
			TypeMeta:   metav1.TypeMeta{Kind: "Binding", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: r.name, Namespace: r.namespace, UID: obj.GetUID()},
			Target:     corev1.ObjectReference{Kind: "Node", Name: obj.(*corev1.Pod).Spec.NodeName},
		}, nil
	}
	shown := obj
	if kind.Stored != nil {
		var err error
		if shown, err = kind.FromStored(obj); err != nil {
			return nil, err
		}
	}
	return typed{shown, kind.GVK}, nil
}

// typed is an object that says in JSON of what kind it is, and is not changed for that: others may be reading it.
type typed struct {
	api.Object
	gvk schema.GroupVersionKind
}

func (t typed) MarshalJSON() ([]byte, error) {
	own := t.GetObjectKind()
	if own.GroupVersionKind() == t.gvk {
		return json.Marshal(t.Object)
	}
	c := t.DeepCopyObject()
	c.GetObjectKind().SetGroupVersionKind(t.gvk)
	return json.Marshal(c)
}
