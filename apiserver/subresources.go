package apiserver

import (
	"fmt"
	"maps"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/shoal-edge/shoal/api"
)

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
	}, req.storeOptions(req.query["dryRun"])...)
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

// serveFinalize sets what still holds a namespace back, and nothing else.
func (s *Server) serveFinalize(w http.ResponseWriter, req *request) error {
	var opts metav1.UpdateOptions
	if err := convert(metav1.Convert_url_Values_To_v1_UpdateOptions, req.query, &opts); err != nil {
		return err
	}
	if err := invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(&opts)); err != nil {
		return err
	}
	track, err := s.track(req, req.sub, opts.FieldManager)
	if err != nil {
		return err
	}
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
	}, append(req.storeOptions(opts.DryRun), track)...)
	if err != nil {
		return err
	}
	return s.writeShaped(w, req, http.StatusOK, obj)
}
