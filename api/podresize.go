package api

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
)

// prepareResize lets an update change what containers, and the pod as a whole, ask for and may use, and nothing else. Containers that
// come, go or change places are left for validation to refuse.
func prepareResize(n, o *core.Pod) {
	if len(n.Spec.Containers) == len(o.Spec.Containers) && len(n.Spec.InitContainers) == len(o.Spec.InitContainers) {
		wanted := n.Spec.Resources
		containers := onlyResources(n.Spec.Containers, o.Spec.Containers)
		initContainers := onlyResources(n.Spec.InitContainers, o.Spec.InitContainers)
		n.Spec, n.Status = o.Spec, o.Status
		metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &o.ObjectMeta)
		n.Spec.Containers, n.Spec.InitContainers, n.Spec.Resources = containers, initContainers, wanted
	}
	if n.Spec.Resources == nil && o.Spec.Resources != nil {
		n.Spec.Resources = o.Spec.Resources.DeepCopy()
	}
	if n.Spec.Resources != nil {
		podutil.DefaultPodLevelResources(n)
	}
	podutil.DropDisabledPodFields(n, o)
	if !apiequality.Semantic.DeepEqual(n.Spec, o.Spec) {
		n.Generation++
	}
}

// onlyResources are the older containers with what the newer ones ask for; the newer ones if they are not the same containers.
func onlyResources(newer, older []core.Container) []core.Container {
	if len(newer) == 0 {
		return newer
	}
	merged := make([]core.Container, len(older))
	copy(merged, older)
	for i := range newer {
		if merged[i].Name != newer[i].Name {
			return newer
		}
		merged[i].Resources, merged[i].ResizePolicy = newer[i].Resources, newer[i].ResizePolicy
	}
	return merged
}
