package apiserver

import (
	"fmt"
	"maps"
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
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

func (s *Server) scale(req *request) (api.Object, error) {
	var change func(scale *autoscalingv1.Scale) error
	if req.verb == "patch" {
		p, _, err := s.readPatch(req)
		if err != nil {
			return nil, err
		}
		change = func(scale *autoscalingv1.Scale) error {
			var patched autoscalingv1.Scale
			if err := p.apply(scaleGVK(), scale, &patched); err != nil {
				return err
			}
			*scale = patched
			return nil
		}
	} else {
		var wanted autoscalingv1.Scale
		if err := s.decode(req, scaleGVK(), &wanted); err != nil {
			return nil, err
		}
		change = func(scale *autoscalingv1.Scale) error {
			*scale = wanted
			return nil
		}
	}
	return s.cfg.Client.Modify(req.Context(), req.key(), "scale", func(obj api.Object) error {
		scale, replicas, err := scaleOf(obj)
		if err != nil {
			return err
		}
		if err := change(scale); err != nil {
			return err
		}
		if err := checkScale(req, scale); err != nil {
			return err
		}
		*replicas = ptr.To(scale.Spec.Replicas)
		if scale.ResourceVersion != "" {
			obj.SetResourceVersion(scale.ResourceVersion)
		}
		if scale.UID != "" {
			obj.SetUID(scale.UID)
		}
		return nil
	}, storeOptions(req.query["dryRun"])...)
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

// scaleOf shows an object's scale, and where it keeps the number of its replicas.
func scaleOf(obj api.Object) (*autoscalingv1.Scale, **int32, error) {
	var selector *metav1.LabelSelector
	var replicas **int32
	var have int32
	switch o := obj.(type) {
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
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: autoscalingv1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: ptr.Deref(*replicas, 0)},
		Status: autoscalingv1.ScaleStatus{Replicas: have, Selector: parsed.String()},
	}, replicas, nil
}

// serveBinding places a pod on a node.
func (s *Server) serveBinding(w http.ResponseWriter, req *request) error {
	var binding corev1.Binding
	if err := s.decode(req, corev1.SchemeGroupVersion.WithKind("Binding"), &binding); err != nil {
		return err
	}
	if binding.Name != "" && binding.Name != req.name {
		return errBadRequest("name in URL does not match name in Binding object")
	}
	if binding.Target.Name == "" || binding.Target.Kind != "" && binding.Target.Kind != "Node" {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Binding"}, req.name, field.ErrorList{
			field.Required(field.NewPath("target", "name"), "must name a Node"),
		})
	}
	_, err := s.cfg.Client.Modify(req.Context(), req.key(), req.sub, func(obj api.Object) error {
		if why := bind(obj.(*corev1.Pod), &binding); why != nil {
			return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, req.name, why)
		}
		return nil
	}, storeOptions(req.query["dryRun"])...)
	if err != nil {
		return err
	}
	return s.writeSuccess(w, req, http.StatusCreated, nil)
}

func bind(pod *corev1.Pod, b *corev1.Binding) error {
	switch {
	case b.UID != "" && b.UID != pod.UID:
		return fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, pod.UID) //nolint:staticcheck
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return fmt.Errorf("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return fmt.Errorf("pod %s has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName, pod.Status.NominatedNodeName = b.Target.Name, ""
	if len(b.Annotations) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		maps.Copy(pod.Annotations, b.Annotations)
	}
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodScheduled {
			pod.Status.Conditions[i] = scheduled
			return nil
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, scheduled)
	return nil
}

// serveEviction deletes a pod on behalf of somebody who clears a node. Disruption budgets do not exist yet.
func (s *Server) serveEviction(w http.ResponseWriter, req *request) error {
	var eviction policyv1.Eviction
	if err := s.decode(req, policyv1.SchemeGroupVersion.WithKind("Eviction"), &eviction); err != nil {
		return err
	}
	if eviction.Name != "" && eviction.Name != req.name {
		return errBadRequest("name in URL does not match name in Eviction object")
	}
	opts := eviction.DeleteOptions
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	if dryRun := req.query["dryRun"]; len(dryRun) > 0 {
		opts.DryRun = dryRun
	}
	if _, err := s.cfg.Client.Delete(req.Context(), req.key(), opts); err != nil {
		return err
	}
	return s.writeSuccess(w, req, http.StatusCreated, nil)
}

// serveFinalize sets what still holds a namespace back, and nothing else.
func (s *Server) serveFinalize(w http.ResponseWriter, req *request) error {
	wanted := &corev1.Namespace{}
	if err := s.decode(req, req.kind.GVK, wanted); err != nil {
		return err
	}
	if err := samePlace(req, wanted); err != nil {
		return err
	}
	obj, err := s.cfg.Client.Modify(req.Context(), req.key(), req.sub, func(obj api.Object) error {
		if wanted.ResourceVersion != "" {
			obj.SetResourceVersion(wanted.ResourceVersion)
		}
		obj.(*corev1.Namespace).Spec.Finalizers = wanted.Spec.Finalizers
		return nil
	})
	if err != nil {
		return err
	}
	return s.writeShaped(w, req, http.StatusOK, obj)
}
