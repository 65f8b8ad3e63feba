package dispatch

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// podNode reads the node of an encoded pod.
func podNode(value []byte) string {
	var pod corev1.Pod
	if pod.Unmarshal(value) != nil {
		return ""
	}
	return pod.Spec.NodeName
}

// parseRevision reads a resourceVersion; the store has written it.
func parseRevision(resourceVersion string) uint64 {
	revision, _ := strconv.ParseUint(resourceVersion, 10, 64)
	return revision
}
