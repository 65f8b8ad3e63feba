package api

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/utils/ptr"
)

// jobOptions say what of a job may be changed: its pods' template only while it is suspended and has none.
func jobOptions(n, o *batch.Job) validation.JobValidationOptions {
	if o == nil {
		return validation.JobValidationOptions{PodValidationOptions: templateOptions(&n.Spec.Template, nil), RequirePrefixedLabels: true}
	}
	opts := validation.JobValidationOptions{PodValidationOptions: templateOptions(&n.Spec.Template, &o.Spec.Template)}
	if metav1validation.LabelSelectorHasInvalidLabelValue(o.Spec.Selector) {
		opts.AllowInvalidLabelValueInSelector = true
	}
	idle := o.Status.StartTime == nil || validation.IsConditionTrue(o.Status.Conditions, batch.JobSuspended)
	mutable := ptr.Deref(o.Spec.Suspend, false) && idle && o.Status.Active == 0
	opts.AllowMutablePodResources, opts.AllowMutableSchedulingDirectives = mutable, mutable
	_, hadName := o.Spec.Template.Labels[batch.JobNameLabel]
	_, hadUID := o.Spec.Template.Labels[batch.ControllerUidLabel]
	opts.RequirePrefixedLabels = hadName && hadUID
	return opts
}

// jobStatusOptions choose the checks of a status update: each of those that look at a field which the update changes, so that
// a status that is wrong already can still be changed elsewhere.
func jobStatusOptions(n, o *batch.Job) validation.JobStatusValidationOptions {
	turned := func(t batch.JobConditionType) bool {
		return validation.IsConditionTrue(n.Status.Conditions, t) != validation.IsConditionTrue(o.Status.Conditions, t)
	}
	finished := validation.IsJobFinished(n) != validation.IsJobFinished(o)
	complete := validation.IsJobComplete(n) != validation.IsJobComplete(o)
	failed := validation.IsJobFailed(n) != validation.IsJobFailed(o)
	completed := n.Status.CompletedIndexes != o.Status.CompletedIndexes
	failedIndexes := !ptr.Equal(n.Status.FailedIndexes, o.Status.FailedIndexes)
	active := n.Status.Active != o.Status.Active
	started := !ptr.Equal(n.Status.StartTime, o.Status.StartTime)
	ended := !ptr.Equal(n.Status.CompletionTime, o.Status.CompletionTime)
	uncounted := !apiequality.Semantic.DeepEqual(n.Status.UncountedTerminatedPods, o.Status.UncountedTerminatedPods)
	indexed := ptr.Deref(n.Spec.CompletionMode, batch.NonIndexedCompletion) == batch.IndexedCompletion
	nothingToDo := ptr.Deref(n.Spec.Suspend, false) && ptr.Deref(n.Spec.Completions, 1) == 0
	resuming := validation.IsConditionTrue(o.Status.Conditions, batch.JobSuspended) &&
		validation.IsConditionFalse(n.Status.Conditions, batch.JobSuspended)
	return validation.JobStatusValidationOptions{
		RejectDecreasingSucceededCounter:             !indexed || !ptr.Equal(n.Spec.Completions, n.Spec.Parallelism),
		RejectDecreasingFailedCounter:                true,
		RejectDisablingTerminalCondition:             true,
		RejectInvalidCompletedIndexes:                completed,
		RejectInvalidFailedIndexes:                   failedIndexes,
		RejectCompletedIndexesForNonIndexedJob:       completed,
		RejectFailedIndexesForNoBackoffLimitPerIndex: failedIndexes,
		RejectFailedIndexesOverlappingCompleted:      failedIndexes || completed,
		RejectFailedJobWithoutFailureTarget:          failed || failedIndexes,
		RejectCompleteJobWithoutSuccessCriteriaMet:   complete || turned(batch.JobSuccessCriteriaMet),
		RejectFinishedJobWithActivePods:              finished || active,
		RejectFinishedJobWithoutStartTime:            (finished || started) && !nothingToDo,
		RejectFinishedJobWithUncountedTerminatedPods: finished || uncounted,
		RejectStartTimeUpdateForUnsuspendedJob:       started && !resuming,
		RejectCompletionTimeBeforeStartTime:          started || ended,
		RejectMutatingCompletionTime:                 true,
		RejectNotCompleteJobWithCompletionTime:       complete || ended,
		RejectCompleteJobWithoutCompletionTime:       complete || ended,
		RejectCompleteJobWithFailedCondition:         complete || failed,
		RejectCompleteJobWithFailureTargetCondition:  complete || turned(batch.JobFailureTarget),
		RejectMoreReadyThanActivePods:                !ptr.Equal(n.Status.Ready, o.Status.Ready) || active,
		RejectFinishedJobWithTerminatingPods:         finished || !ptr.Equal(n.Status.Terminating, o.Status.Terminating),
	}
}
