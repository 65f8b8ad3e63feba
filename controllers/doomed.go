package controllers

import (
	"cmp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// sortForDeletion puts the pods that are missed least first: those that run nowhere, that have not started, that are not
// ready; then those that cost least, that share a node with others of their kind, that are younger.
func sortForDeletion(replicas []*corev1.Pod) {
	company := map[*corev1.Pod]int{}
	byLoss(replicas, company)
	// Of those that share a node, the first counts all of them, the last only itself: the surplus goes node by node.
	onNode := map[string]int{}
	for i := len(replicas) - 1; i >= 0; i-- {
		onNode[replicas[i].Spec.NodeName]++
		company[replicas[i]] = onNode[replicas[i].Spec.NodeName]
	}
	byLoss(replicas, company)
}

func byLoss(replicas []*corev1.Pod, company map[*corev1.Pod]int) {
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, "": 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	slices.SortStableFunc(replicas, func(a, b *corev1.Pod) int {
		since, ready := readySince(a)
		otherSince, otherReady := readySince(b)
		return cmp.Or(
			cmp.Compare(truth(a.Spec.NodeName != ""), truth(b.Spec.NodeName != "")),
			cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
			cmp.Compare(truth(ready), truth(otherReady)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(company[b], company[a]),
			otherSince.Compare(since),
			cmp.Compare(restarts(b), restarts(a)),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
			cmp.Compare(a.Name, b.Name),
		)
	})
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func deletionCost(p *corev1.Pod) int64 {
	cost, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return cost
}

func restarts(p *corev1.Pod) int32 {
	most := int32(0)
	for _, s := range p.Status.ContainerStatuses {
		most = max(most, s.RestartCount)
	}
	return most
}
