package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// Reasons of the condition Progressing that other decisions read.
const (
	reasonDone     = "NewReplicaSetAvailable"
	reasonDeadline = "ProgressDeadlineExceeded"
	reasonPaused   = "DeploymentPaused"
	reasonResumed  = "DeploymentResumed"
)

// report writes the status, and returns when the progress deadline is to be looked at again. While a rollout rests (paused,
// resized, deleted) its progress is not judged.
func (r *rollout) report(ctx context.Context, resting bool) (time.Duration, error) {
	r.count()
	r.judgeAvailability()
	var again time.Duration
	if !resting && r.object.Spec.ProgressDeadlineSeconds != nil {
		again = r.judgeProgress()
	}
	r.takeFailure()
	return again, r.write(ctx)
}

func (r *rollout) count() {
	s := &r.status
	s.ObservedGeneration = r.object.Generation
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.UpdatedReplicas = 0, 0, 0, 0
	asked, terminating, known := int32(0), int32(0), true
	for _, set := range r.sets {
		asked += size(set)
		s.Replicas += set.Status.Replicas
		s.ReadyReplicas += set.Status.ReadyReplicas
		s.AvailableReplicas += set.Status.AvailableReplicas
		if set.Status.TerminatingReplicas == nil {
			known = false
		} else {
			terminating += *set.Status.TerminatingReplicas
		}
	}
	if r.newest != nil {
		s.UpdatedReplicas = r.newest.Status.Replicas
	}
	s.UnavailableReplicas = max(0, asked-s.AvailableReplicas)
	s.TerminatingReplicas = nil
	if known {
		s.TerminatingReplicas = &terminating
	}
}

func (r *rollout) judgeAvailability() {
	_, unavailable := r.bounds()
	if r.status.AvailableReplicas >= r.replicas()-unavailable {
		r.setCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Enough replicas are available.")
	} else {
		r.setCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Too few replicas are available.")
	}
}

// complete reports that all pods are of the present template, available, and no others are left.
func (r *rollout) complete() bool {
	s, want := &r.status, r.replicas()
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want && s.ObservedGeneration >= r.object.Generation
}

// judgeProgress sets the condition Progressing and returns the time left to the deadline, if that is what is waited for.
func (r *rollout) judgeProgress() time.Duration {
	present := r.condition(appsv1.DeploymentProgressing)
	rests := present != nil && present.Reason == reasonDone && r.status.Replicas == r.status.UpdatedReplicas
	name := ""
	if r.newest != nil {
		name = r.newest.Name
	}
	switch {
	case rests: // pods that fail after the rollout are no lack of progress
		return 0
	case r.complete():
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonDone,
			fmt.Sprintf("Replica set %q is rolled out.", name))
		return 0
	case r.progressed() || present != nil && present.Reason == reasonDone: // a new rollout begins to be timed
		r.touchCondition("ReplicaSetUpdated", fmt.Sprintf("Replica set %q is being rolled out.", name))
	case present != nil && present.Reason == reasonDeadline:
		return 0
	case present != nil && r.deadline(present) <= 0:
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonDeadline,
			fmt.Sprintf("Replica set %q made no progress within the deadline.", name))
		return 0
	}
	if present = r.condition(appsv1.DeploymentProgressing); present == nil {
		return 0
	}
	return max(r.deadline(present), time.Second)
}

func (r *rollout) deadline(progressing *appsv1.DeploymentCondition) time.Duration {
	limit := time.Duration(*r.object.Spec.ProgressDeadlineSeconds) * time.Second
	return progressing.LastUpdateTime.Add(limit).Sub(r.d.c.now())
}

// progressed reports that there are more new pods, fewer old ones or more usable ones than the status last told.
func (r *rollout) progressed() bool {
	before, now := &r.object.Status, &r.status
	return now.UpdatedReplicas > before.UpdatedReplicas ||
		now.Replicas-now.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		now.ReadyReplicas > before.ReadyReplicas || now.AvailableReplicas > before.AvailableReplicas
}

// notePause keeps the progress deadline from running while a rollout is paused, or waits for the next wave.
func (r *rollout) notePause() {
	if r.object.Spec.ProgressDeadlineSeconds == nil {
		return
	}
	present := r.condition(appsv1.DeploymentProgressing)
	if present != nil && present.Reason == reasonDeadline {
		return
	}
	paused, rests := present != nil && present.Reason == reasonPaused, r.object.Spec.Paused || r.rests()
	switch {
	case rests && !paused:
		message := "The deployment is paused."
		if !r.object.Spec.Paused {
			message = "The deployment waits for the next wave of its rollout."
		}
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, message)
	case !rests && paused:
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "The deployment goes on.")
	}
}

// noteFailure tells of a replica set that could not be made, and returns the failure.
func (r *rollout) noteFailure(ctx context.Context, failure error) error {
	if r.newest != nil || ctx.Err() != nil || apierrors.IsAlreadyExists(failure) || r.object.Spec.ProgressDeadlineSeconds == nil {
		return failure
	}
	r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", failure.Error())
	r.count()
	if err := r.write(ctx); err != nil {
		return err
	}
	return failure
}

// takeFailure passes a replica set's failure to make pods on.
func (r *rollout) takeFailure() {
	r.status.Conditions = slices.DeleteFunc(r.status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentReplicaFailure && !r.failing()
	})
	for _, set := range r.sets {
		for _, c := range set.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
				r.setCondition(appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message)
				return
			}
		}
	}
}

func (r *rollout) failing() bool {
	return slices.ContainsFunc(r.sets, func(s *appsv1.ReplicaSet) bool {
		return slices.ContainsFunc(s.Status.Conditions, func(c appsv1.ReplicaSetCondition) bool {
			return c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue
		})
	})
}

func (r *rollout) condition(t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range r.status.Conditions {
		if r.status.Conditions[i].Type == t {
			return &r.status.Conditions[i]
		}
	}
	return nil
}

// setCondition sets a condition; one that says the same already stays as it is, times included.
func (r *rollout) setCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	now := metav1.NewTime(r.d.c.now())
	present := r.condition(t)
	if present == nil {
		r.status.Conditions = append(r.status.Conditions, appsv1.DeploymentCondition{Type: t, LastTransitionTime: now})
		present = &r.status.Conditions[len(r.status.Conditions)-1]
	} else if present.Status == status && present.Reason == reason {
		return
	}
	if present.Status != status {
		present.LastTransitionTime = now
	}
	present.Status, present.Reason, present.Message, present.LastUpdateTime = status, reason, message, now
}

// touchCondition sets Progressing and starts the deadline anew.
func (r *rollout) touchCondition(reason, message string) {
	r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reason, message)
	present := r.condition(appsv1.DeploymentProgressing)
	present.Message, present.LastUpdateTime = message, metav1.NewTime(r.d.c.now())
}

func (r *rollout) write(ctx context.Context) error {
	if apiequality.Semantic.DeepEqual(r.status, r.object.Status) {
		return nil
	}
	_, err := r.d.c.client.Modify(ctx, key(deployments, r.object.Namespace, r.object.Name), "status", func(object api.Object) error {
		current := object.(*appsv1.Deployment)
		if current.UID != r.object.UID {
			return errKeep
		}
		collisions := current.Status.CollisionCount
		current.Status = *r.status.DeepCopy()
		current.Status.CollisionCount = collisions
		return nil
	})
	if err != nil && !errors.Is(err, errKeep) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}
