package admission

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/store"
)

// defaultReplaceAfter is how long pods stay bound to a node that is not ready or unreachable unless they say otherwise.
const defaultReplaceAfter = 5 * time.Minute

// defaultTolerationSeconds lets each pod stay for a while on a node that is not ready or unreachable, also one whose tolerations are
// replaced. Pods that say themselves how long they stay are left alone.
func defaultTolerationSeconds(replaceAfter time.Duration) Plugin {
	if replaceAfter <= 0 {
		replaceAfter = defaultReplaceAfter
	}
	seconds := int64(replaceAfter.Round(time.Second) / time.Second)
	return Plugin{Name: "DefaultTolerationSeconds", Admit: written(func(_ context.Context, _ *store.Admission, pod *corev1.Pod) error {
		for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
			if slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return speaksOf(t, taint) }) {
				continue
			}
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To(seconds),
			})
		}
		return nil
	})}
}

func speaksOf(t corev1.Toleration, taint string) bool {
	return (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
}
