package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/store"
)

// DefaultReplaceAfter is how long pods stay bound to a node that is not ready or unreachable unless they say otherwise.
const DefaultReplaceAfter = 5 * time.Minute

// DefaultTolerations is the admission that lets each new pod stay for a while on a node that is not ready or unreachable.
// Pods that say themselves how long they stay are left alone.
func DefaultTolerations(replaceAfter time.Duration) store.Admitter {
	if replaceAfter <= 0 {
		replaceAfter = DefaultReplaceAfter
	}
	seconds := int64(replaceAfter.Round(time.Second) / time.Second)
	return store.AdmitFunc(func(_ context.Context, a *store.Admission) error {
		pod, ok := a.Object.(*corev1.Pod)
		if !ok || a.Operation != store.OpCreate || a.Subresource != "" {
			return nil
		}
		for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
			if slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return speaksOf(t, taint) }) {
				continue
			}
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To(seconds),
			})
		}
		return nil
	})
}

func speaksOf(t corev1.Toleration, taint string) bool {
	return (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
}
