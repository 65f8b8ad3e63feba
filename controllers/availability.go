package controllers

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// readySince tells whether a pod is ready, and since when.
func readySince(pod *corev1.Pod) (time.Time, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

// failedPodStays is how long a pod that has failed is left to be looked at before another one of its name or on its node is made, so that one that a
// device refuses is not made over and over.
const failedPodStays = 30 * time.Second

// wakeUp is when passing time alone changes something; zero if it does not.
type wakeUp struct{ again time.Duration }

func (w *wakeUp) after(d time.Duration) {
	if d > 0 && (w.again == 0 || d < w.again) {
		w.again = d
	}
}

// available reports whether a pod has been ready for long enough.
func (w *wakeUp) available(pod *corev1.Pod, minReadySeconds int32, now time.Time) bool {
	since, ready := readySince(pod)
	if !ready || minReadySeconds == 0 {
		return ready
	}
	left := since.Add(time.Duration(minReadySeconds) * time.Second).Sub(now)
	w.after(left)
	return left <= 0
}

// mayGo reports whether a pod that has ended has been left for long enough.
func (w *wakeUp) mayGo(pod *corev1.Pod, now time.Time) bool {
	left := failedPodStays - now.Sub(pod.CreationTimestamp.Time)
	w.after(left)
	return left <= 0
}

// ended reports whether a pod has run to its end.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
