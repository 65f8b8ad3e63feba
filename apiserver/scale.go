package apiserver

import (
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/apiserver/fieldmanager"
)

// serveScale reads or writes the number of replicas alone.
func (s *Server) serveScale(w http.ResponseWriter, req *request) error {
	out, err := negotiate(req.Request)
	if err != nil {
		return err
	}
	out.as = ""
	var scaled api.Object
	switch req.verb {
	case "get":
		scaled, err = s.read(req, req.query.Get("resourceVersion"))
	case "update", "patch":
		scaled, err = s.scale(req)
	default:
		return errMethod(req)
	}
	if err != nil {
		return err
	}
	scale, _, err := scaleOf(scaled)
	if err != nil {
		return err
	}
	return s.writeObject(w, req, http.StatusOK, out, scale)
}

// rescale makes the wanted scale of the present one, and notes in it whose the replicas are.
type rescale func(fields *fieldmanager.Manager, live *autoscalingv1.Scale) (*autoscalingv1.Scale, error)

func (s *Server) scale(req *request) (api.Object, error) {
	change, dryRun, err := s.rescale(req)
	if err != nil {
		return nil, err
	}
	fields, err := s.fields.For(req.kind, "scale")
	if err != nil {
		return nil, err
	}
	return s.cfg.Client.Modify(req.Context(), req.key(), "scale", func(obj api.Object) error {
		scale, setReplicas, err := scaleOf(obj)
		if err != nil {
			return err
		}
		gv := req.kind.GVK.GroupVersion()
		shared := managedfields.NewScaleHandler(obj.GetManagedFields(), gv, managedfields.ResourcePathMappings{
			gv.String(): fieldpath.MakePathOrDie("spec", "replicas"),
		})
		if scale.ManagedFields, err = shared.ToSubresource(); err != nil {
			return apierrors.NewInternalError(err)
		}
		wanted, err := change(fields, scale)
		if err != nil {
			return err
		}
		if err := checkScale(req, wanted); err != nil {
			return err
		}
		entries, err := shared.ToParent(wanted.ManagedFields)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		obj.SetManagedFields(entries)
		if err := setReplicas(wanted.Spec.Replicas); err != nil {
			return errBadRequest("%v", err)
		}
		if wanted.ResourceVersion != "" {
			obj.SetResourceVersion(wanted.ResourceVersion)
		}
		if wanted.UID != "" {
			obj.SetUID(wanted.UID)
		}
		return nil
	}, req.storeOptions(dryRun)...)
}

// rescale reads what the request wants to do to a scale.
func (s *Server) rescale(req *request) (change rescale, dryRun []string, err error) {
	if req.verb == "update" {
		var opts metav1.UpdateOptions
		if err := convert(metav1.Convert_url_Values_To_v1_UpdateOptions, req.query, &opts); err != nil {
			return nil, nil, err
		}
		if err := invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(&opts)); err != nil {
			return nil, nil, err
		}
		var wanted autoscalingv1.Scale
		if err := s.decode(req, scaleGVK(), &wanted); err != nil {
			return nil, nil, err
		}
		return func(fields *fieldmanager.Manager, live *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
			newer := wanted.DeepCopy()
			fields.Track(newer, live, managerName(opts.FieldManager, req.UserAgent()))
			return newer, nil
		}, opts.DryRun, nil
	}
	p, err := s.readPatch(req)
	if err != nil {
		return nil, nil, err
	}
	return func(fields *fieldmanager.Manager, live *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		if p.applies() {
			merged, err := p.merge(fields, live)
			if err != nil {
				return nil, err
			}
			return merged.(*autoscalingv1.Scale), nil
		}
		newer := &autoscalingv1.Scale{}
		if err := p.apply(scaleGVK(), live, newer); err != nil {
			return nil, err
		}
		fields.Track(newer, live, managerName(p.opts.FieldManager, req.UserAgent()))
		return newer, nil
	}, p.opts.DryRun, nil
}

func checkScale(req *request, scale *autoscalingv1.Scale) error {
	if scale.Name != req.name {
		return errBadRequest("the name of the object (%s) does not match the name on the URL (%s)", scale.Name, req.name)
	}
	if scale.Spec.Replicas < 0 {
		return apierrors.NewInvalid(scaleGVK().GroupKind(), req.name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas, "must be greater than or equal to 0"),
		})
	}
	return nil
}

func scaleGVK() schema.GroupVersionKind { return autoscalingv1.SchemeGroupVersion.WithKind("Scale") }

// ScaleOf shows an object's scale.
func ScaleOf(obj api.Object) (runtime.Object, error) {
	scale, _, err := scaleOf(obj)
	return scale, err
}

// scaleOf shows an object's scale, and how to change the number of its replicas.
func scaleOf(obj api.Object) (*autoscalingv1.Scale, func(int32) error, error) {
	var selector *metav1.LabelSelector
	var replicas **int32
	var have int32
	switch o := obj.(type) {
	case *appsv1.StatefulSet:
		selector, replicas, have = o.Spec.Selector, &o.Spec.Replicas, o.Status.Replicas
	case *corev1.ReplicationController:
		selector, replicas, have = &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, &o.Spec.Replicas, o.Status.Replicas
	case *custom.Object:
		scale, err := o.Scale()
		if err != nil {
			return nil, nil, apierrors.NewInternalError(err)
		}
		return scale, o.SetReplicas, nil
	case *appsv1.Deployment:
		selector, replicas, have = o.Spec.Selector, &o.Spec.Replicas, o.Status.Replicas
	case *appsv1.ReplicaSet:
		selector, replicas, have = o.Spec.Selector, &o.Spec.Replicas, o.Status.Replicas
	default:
		return nil, nil, errNotFound()
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, nil, errBadRequest("%v", err)
	}
	set := func(n int32) error {
		*replicas = &n
		return nil
	}
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: autoscalingv1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: ptr.Deref(*replicas, 0)},
		Status: autoscalingv1.ScaleStatus{Replicas: have, Selector: parsed.String()},
	}, set, nil
}
