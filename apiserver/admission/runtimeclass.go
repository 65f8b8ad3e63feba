package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
	tolerationsutil "k8s.io/kubernetes/pkg/util/tolerations"

	"github.com/shoal-edge/shoal/store"
)

// runtimeClass gives a new pod what its runtime class says: what the runtime itself takes, and where it is there at all.
func runtimeClass() Plugin {
	return Plugin{
		Name: "RuntimeClass",
		Admit: created(func(_ context.Context, a *store.Admission, pod *corev1.Pod) error {
			class, err := classOf(a.Reader, pod)
			if err != nil || class == nil {
				return err
			}
			if o := class.Overhead; o != nil {
				if len(pod.Spec.Overhead) > 0 && !apiequality.Semantic.DeepEqual(o.PodFixed, pod.Spec.Overhead) {
					return errOverhead()
				}
				pod.Spec.Overhead = o.PodFixed
			}
			if class.Scheduling == nil {
				return nil
			}
			return setScheduling(pod, class.Scheduling)
		}),
		Review: created(func(_ context.Context, a *store.Admission, pod *corev1.Pod) error {
			class, err := classOf(a.Reader, pod)
			switch {
			case err != nil:
				return err
			case class != nil && class.Overhead != nil:
				if !apiequality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
					return errOverhead()
				}
			case pod.Spec.Overhead != nil:
				return errors.New("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
			}
			return nil
		}),
	}
}

func errOverhead() error {
	return errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
}

// classOf is the runtime class of a pod, nil if it names none.
func classOf(r store.Reader, pod *corev1.Pod) (*nodev1.RuntimeClass, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil {
		return nil, nil
	}
	class, ok := store.Get[nodev1.RuntimeClass](r, "", *name)
	if !ok {
		return nil, fmt.Errorf("pod rejected: RuntimeClass %q not found", *name)
	}
	return class, nil
}

func setScheduling(pod *corev1.Pod, s *nodev1.Scheduling) error {
	for key, value := range s.NodeSelector {
		if own, ok := pod.Spec.NodeSelector[key]; ok && own != value {
			return fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, value, key, own)
		}
	}
	if pod.Spec.NodeSelector == nil {
		pod.Spec.NodeSelector = s.NodeSelector
	} else {
		maps.Copy(pod.Spec.NodeSelector, s.NodeSelector)
	}
	merged, err := mergeTolerations(pod.Spec.Tolerations, s.Tolerations)
	pod.Spec.Tolerations = merged
	return err
}

// mergeTolerations joins two lists by upstream's rules, which are written for the internal type.
func mergeTolerations(first, second []corev1.Toleration) ([]corev1.Toleration, error) {
	var internal [2][]core.Toleration
	for i, list := range [][]corev1.Toleration{first, second} {
		internal[i] = make([]core.Toleration, len(list))
		for j := range list {
			if err := corev1conversion.Convert_v1_Toleration_To_core_Toleration(&list[j], &internal[i][j], nil); err != nil {
				return nil, err
			}
		}
	}
	merged := tolerationsutil.MergeTolerations(internal[0], internal[1])
	out := make([]corev1.Toleration, len(merged))
	for i := range merged {
		if err := corev1conversion.Convert_core_Toleration_To_v1_Toleration(&merged[i], &out[i], nil); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}
