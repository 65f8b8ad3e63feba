package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conditions in the order kubelet has them. Times of those that did not change are kept.
func (v *view) conditions(s *corev1.PodStatus) []corev1.PodCondition {
	sandbox := v.o.sandbox()
	ready := v.containersReady(s)
	all := []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, sandbox != nil && sandbox.Ready, "", ""),
		v.initializedCondition(s),
		v.gates(ready),
		ready,
		condition(corev1.PodScheduled, true, "", ""),
	}
	if v.resizing() {
		all = append(all, condition(corev1.PodResizeInProgress, true, "", ""))
	}
	if s.Reason == "Evicted" {
		all = append(all, condition(corev1.DisruptionTarget, true, corev1.PodReasonTerminationByKubelet, s.Message))
	}
	for i := range all {
		all[i].ObservedGeneration = v.p.Generation
		all[i].LastTransitionTime = metav1.NewTime(v.now).Rfc3339Copy()
		for _, known := range [][]corev1.PodCondition{v.p.Status.Conditions, prior(v.o)} {
			if old := find(known, all[i].Type); old != nil && old.Status == all[i].Status && !old.LastTransitionTime.IsZero() {
				all[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return all
}

func prior(o *Observed) []corev1.PodCondition {
	if o.Prior == nil {
		return nil
	}
	return o.Prior.Conditions
}

func find(all []corev1.PodCondition, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range all {
		if all[i].Type == kind {
			return &all[i]
		}
	}
	return nil
}

func condition(kind corev1.PodConditionType, yes bool, reason, message string) corev1.PodCondition {
	c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	if yes {
		c.Status = corev1.ConditionTrue
	}
	return c
}

func (v *view) initializedCondition(s *corev1.PodStatus) corev1.PodCondition {
	if v.phase == corev1.PodSucceeded {
		return condition(corev1.PodInitialized, true, "PodCompleted", "")
	}
	if v.initialized() {
		return condition(corev1.PodInitialized, true, "", "")
	}
	var incomplete []string
	for i, cs := range s.InitContainerStatuses {
		done := cs.Ready
		if Sidecar(&v.p.Spec.InitContainers[i]) {
			done = cs.Started != nil && *cs.Started
		}
		if !done {
			incomplete = append(incomplete, cs.Name)
		}
	}
	return condition(corev1.PodInitialized, false, "ContainersNotInitialized", "containers with incomplete status: ["+strings.Join(incomplete, " ")+"]")
}

func (v *view) containersReady(s *corev1.PodStatus) corev1.PodCondition {
	switch v.phase {
	case corev1.PodSucceeded:
		return condition(corev1.ContainersReady, false, "PodCompleted", "")
	case corev1.PodFailed:
		return condition(corev1.ContainersReady, false, "PodFailed", "")
	}
	var unready []string
	for i, cs := range s.InitContainerStatuses {
		if Sidecar(&v.p.Spec.InitContainers[i]) && !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	for _, cs := range s.ContainerStatuses {
		if !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	if len(unready) > 0 {
		return condition(corev1.ContainersReady, false, "ContainersNotReady", "containers with unready status: ["+strings.Join(unready, " ")+"]")
	}
	return condition(corev1.ContainersReady, true, "", "")
}

// gates is the Ready condition: all containers are ready and all readiness gates, which others set, are open.
func (v *view) gates(ready corev1.PodCondition) corev1.PodCondition {
	if ready.Status != corev1.ConditionTrue {
		return condition(corev1.PodReady, false, ready.Reason, ready.Message)
	}
	var shut []string
	for _, gate := range v.p.Spec.ReadinessGates {
		if c := find(v.p.Status.Conditions, gate.ConditionType); c == nil {
			shut = append(shut, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		} else if c.Status != corev1.ConditionTrue {
			shut = append(shut, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", gate.ConditionType, c.Status))
		}
	}
	if len(shut) > 0 {
		return condition(corev1.PodReady, false, "ReadinessGatesNotReady", strings.Join(shut, ", "))
	}
	return condition(corev1.PodReady, true, "", "")
}
