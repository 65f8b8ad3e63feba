package api

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/helper/qos"
)

// preparePodCreate starts a pod's life: pending, with its quality of service fixed and its label keys resolved.
func preparePodCreate(n *core.Pod) {
	n.Generation = 1
	n.Status = core.PodStatus{Phase: core.PodPending}
	podutil.DropDisabledPodFields(n, nil)
	if len(n.Spec.SchedulingGates) > 0 {
		podutil.UpdatePodCondition(&n.Status, &core.PodCondition{
			Type: core.PodScheduled, Status: core.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		})
	}
	resolveAffinityKeys(n)
	for i := range n.Spec.TopologySpreadConstraints {
		c := &n.Spec.TopologySpreadConstraints[i]
		resolveKeys(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn, n.Labels)
	}
	settlePod(n)
}

// settlePod derives from the containers' resources those of the pod and its quality of service.
func settlePod(n *core.Pod) {
	podutil.DefaultPodLevelResources(n)
	n.Status.QOSClass = qos.GetPodQOS(n)
}

func resolveAffinityKeys(n *core.Pod) {
	if n.Spec.Affinity == nil {
		return
	}
	var terms []*core.PodAffinityTerm
	if a := n.Spec.Affinity.PodAffinity; a != nil {
		terms = affinityTerms(terms, a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := n.Spec.Affinity.PodAntiAffinity; a != nil {
		terms = affinityTerms(terms, a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	for _, t := range terms {
		resolveKeys(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn, n.Labels)
		resolveKeys(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn, n.Labels)
	}
}

func affinityTerms(
	to []*core.PodAffinityTerm, required []core.PodAffinityTerm, preferred []core.WeightedPodAffinityTerm,
) []*core.PodAffinityTerm {
	for i := range required {
		to = append(to, &required[i])
	}
	for i := range preferred {
		to = append(to, &preferred[i].PodAffinityTerm)
	}
	return to
}

// resolveKeys adds, for each key that the pod has a label for, a requirement on that label's value.
func resolveKeys(s *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator, labels map[string]string) {
	if s == nil {
		return
	}
	for _, key := range keys {
		if value, ok := labels[key]; ok {
			r := metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}}
			s.MatchExpressions = append(s.MatchExpressions, r)
		}
	}
}
