package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/store"
)

// priority turns the name of a pod's priority class into the number that schedulers go by, and sees to it that there is one default
// class at most.
func priority() Plugin {
	return Plugin{
		Name: "Priority",
		Admit: func(_ context.Context, a *store.Admission) error {
			pod, ok := a.Object.(*corev1.Pod)
			switch {
			case !ok || a.Subresource != "":
				return nil
			case a.Operation == store.OpCreate:
				return setPriority(a.Reader, pod)
			}
			keepPriority(pod, a.Old.(*corev1.Pod))
			return nil
		},
		Review: func(_ context.Context, a *store.Admission) error {
			class, ok := a.Object.(*schedulingv1.PriorityClass)
			if !ok || !class.GlobalDefault || a.Subresource != "" {
				return nil
			}
			other := defaultPriority(a.Reader)
			if other == nil || a.Operation == store.OpUpdate && other.Name == class.Name {
				return nil
			}
			return fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", other.Name)
		},
	}
}

func setPriority(r store.Reader, pod *corev1.Pod) error {
	class := &schedulingv1.PriorityClass{
		Value: scheduling.DefaultPriorityWhenNoDefaultClassExists, PreemptionPolicy: ptr.To(corev1.PreemptLowerPriority),
	}
	if name := pod.Spec.PriorityClassName; name != "" {
		found, ok := store.Get[schedulingv1.PriorityClass](r, "", name)
		if !ok {
			return fmt.Errorf("no PriorityClass with name %v was found", name)
		}
		class = found
	} else if standard := defaultPriority(r); standard != nil {
		class = standard
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != class.Value {
		return fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d "+
			"from the given PriorityClass name", *pod.Spec.Priority, class.Value)
	}
	pod.Spec.PriorityClassName, pod.Spec.Priority = class.Name, &class.Value
	if class.PreemptionPolicy == nil {
		return nil
	}
	if have := pod.Spec.PreemptionPolicy; have != nil && *have != *class.PreemptionPolicy {
		return fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller "+
			"computed %s from the given PriorityClass name", *have, *class.PreemptionPolicy)
	}
	pod.Spec.PreemptionPolicy = class.PreemptionPolicy
	return nil
}

// keepPriority lets an update leave out what admission has added.
func keepPriority(newer, older *corev1.Pod) {
	if newer.Spec.Priority == nil {
		newer.Spec.Priority = older.Spec.Priority
	}
	if newer.Spec.PreemptionPolicy == nil {
		newer.Spec.PreemptionPolicy = older.Spec.PreemptionPolicy
	}
}

// defaultPriority is the class of pods that name none, the lowest one should there be several.
func defaultPriority(r store.Reader) *schedulingv1.PriorityClass {
	var found *schedulingv1.PriorityClass
	for _, class := range store.List[schedulingv1.PriorityClass](r, "") {
		if class.GlobalDefault && (found == nil || found.Value > class.Value) {
			found = class
		}
	}
	return found
}
