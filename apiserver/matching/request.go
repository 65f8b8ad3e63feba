// Package matching owns the requests that others have a say in, webhooks and policies: which of them somebody wants to see, and what he is
// shown of one.
package matching

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
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// Request is a write, or a connection that somebody wants to open.
type Request struct {
	Operation store.Operation
	// As is the kind in the version that the request's author speaks.
	As              *api.Kind
	Sub             string // the subresource
	Namespace, Name string
	// Object and Old are in the version that is stored; nil where there is none.
	Object, Old api.Object
	// Sent is what was sent where that is no object of the kind and is not stored: the options of a connection, an Eviction, a TokenRequest.
	Sent    runtime.Object
	Options runtime.Object
	DryRun  bool
	User    *access.User
	Reader  store.Reader
	Hear    store.Hearer
	// Scale makes the Scale of an object that has one.
	Scale func(api.Object) (runtime.Object, error)
}

// inside is who the server's own controllers are to others: what they are called where they are a process of their own.
var inside = &access.User{Name: "system:kube-controller-manager", Groups: []string{"system:authenticated"}}

// Of is the request behind a write. Scale makes the Scale of an object that has one.
func Of(ctx context.Context, a *store.Admission, scale func(api.Object) (runtime.Object, error)) *Request {
	user := access.FromContext(ctx)
	if user == nil {
		user = inside
	}
	r := &Request{
		Operation: a.Operation, As: a.As, Sub: a.Subresource, Object: a.Object, Old: a.Old, DryRun: a.DryRun, User: user, Reader: a.Reader, Hear: a,
		Scale: scale,
	}
	r.Namespace, r.Name = r.subject().GetNamespace(), r.subject().GetName()
	var dryRun []string
	if a.DryRun {
		dryRun = []string{metav1.DryRunAll}
	}
	gv := metav1.SchemeGroupVersion.String()
	switch a.Operation {
	case store.OpCreate:
		r.Options = &metav1.CreateOptions{TypeMeta: metav1.TypeMeta{Kind: "CreateOptions", APIVersion: gv}, DryRun: dryRun}
	case store.OpUpdate:
		r.Options = &metav1.UpdateOptions{TypeMeta: metav1.TypeMeta{Kind: "UpdateOptions", APIVersion: gv}, DryRun: dryRun}
	case store.OpDelete:
		r.Options = &metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: gv}, DryRun: dryRun}
	}
	return r
}

// subject is the object as it shall be, or as it was.
func (r *Request) subject() api.Object {
	if r.Object != nil {
		return r.Object
	}
	return r.Old
}

// Review is the request as others see it who want to see it in the version of kind.
func (r *Request) Review(kind *api.Kind) (*admissionv1.AdmissionRequest, error) {
	q := &admissionv1.AdmissionRequest{
		UID:             types.UID(uuid.NewString()),
		Kind:            metav1.GroupVersionKind(kind.GVK),
		Resource:        metav1.GroupVersionResource(kind.GVR()),
		SubResource:     r.Sub,
		RequestKind:     (*metav1.GroupVersionKind)(&r.As.GVK),
		RequestResource: &metav1.GroupVersionResource{Group: r.As.GVK.Group, Version: r.As.GVK.Version, Resource: r.As.Resource},

		RequestSubResource: r.Sub,
		Name:               r.Name,
		Namespace:          r.Namespace,
		Operation:          admissionv1.Operation(r.Operation),
		UserInfo:           authenticationv1.UserInfo{Username: r.User.Name, UID: r.User.UID, Groups: r.User.Groups},
		DryRun:             &r.DryRun,
	}
	for key, values := range r.User.Extra {
		if q.UserInfo.Extra == nil {
			q.UserInfo.Extra = map[string]authenticationv1.ExtraValue{}
		}
		q.UserInfo.Extra[key] = values
	}
	shown := []struct {
		obj  runtime.Object
		into *runtime.RawExtension
	}{{r.Sent, &q.Object}, {nil, &q.OldObject}, {r.Options, &q.Options}}
	for i, obj := range []api.Object{r.Object, r.Old} {
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
	if r.Sent != nil || r.Shaped() {
		gvk := shown[0].obj.GetObjectKind().GroupVersionKind()
		q.Kind, q.RequestKind = metav1.GroupVersionKind(gvk), (*metav1.GroupVersionKind)(&gvk)
	}
	if r.Shaped() && r.Sub == "binding" {
		q.Operation, q.OldObject.Raw = admissionv1.Create, nil
	}
	return q, nil
}

// Shaped reports whether the subresource is an object of another kind.
func (r *Request) Shaped() bool { return r.Sub == "scale" || r.Sub == "binding" }

// shape is a stored object as somebody is to see it: in the version that he wants, or as the subresource that was written.
func (r *Request) shape(kind *api.Kind, obj api.Object) (runtime.Object, error) {
	switch r.Sub {
	case "scale":
		return r.Scale(obj)
	case "binding":
		return &corev1.Binding{
			TypeMeta:   metav1.TypeMeta{Kind: "Binding", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: r.Name, Namespace: r.Namespace, UID: obj.GetUID()},
			Target:     corev1.ObjectReference{Kind: "Node", Name: obj.(*corev1.Pod).Spec.NodeName},
		}, nil
	}
	return Show(kind, obj)
}

// Show is a stored object in the version of kind. It says in JSON of what kind it is.
func Show(kind *api.Kind, obj api.Object) (runtime.Object, error) {
	if kind.FromStored != nil {
		var err error
		if obj, err = kind.FromStored(obj); err != nil {
			return nil, err
		}
	}
	return typed{obj, kind.GVK}, nil
}

// Read reads what was made of an object that was shown, and brings it into the version that is stored. Fields that the kind does not have are dropped.
func Read(kind *api.Kind, data []byte) (api.Object, error) {
	obj := kind.New()
	var err error
	if custom.Of(kind) != nil {
		_, _, err = custom.Decoder{}.Decode(data, &kind.GVK, obj)
	} else {
		err = json.Unmarshal(data, obj)
	}
	if err != nil {
		return nil, err
	}
	if kind.Default != nil {
		kind.Default(obj)
	}
	if kind.Stored == nil {
		return obj, nil
	}
	return kind.ToStored(obj)
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
