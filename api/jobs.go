package api

import (
	"context"
	"fmt"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	jobapi "k8s.io/kubernetes/pkg/api/job"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchv1defaults "k8s.io/kubernetes/pkg/apis/batch/v1"
	"k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/utils/ptr"
)

func jobs() *Kind {
	return install[batchv1.Job](&Kind{
		GVK:             batchv1.SchemeGroupVersion.WithKind("Job"),
		Resource:        "jobs",
		Categories:      []string{"all"},
		Namespaced:      true,
		Subresources:    []string{"status"},
		OrphanByDefault: true,
		NewList:         func() runtime.Object { return &batchv1.JobList{} },
		Columns: append([]Column{
			nameColumn(), text("Status", "Status of the job."), text("Completions", batchv1.JobStatus{}.SwaggerDoc()["succeeded"]),
			text("Duration", "Time required to complete the job."), ageColumn(),
		}, append(templateColumns(), wide("Selector", batchv1.JobSpec{}.SwaggerDoc()["selector"]))...),
	}, strategy[batchv1.Job, batch.Job]{
		in:       batchv1defaults.Convert_v1_Job_To_batch_Job,
		out:      batchv1defaults.Convert_batch_Job_To_v1_Job,
		defaults: batchv1defaults.SetObjectDefaults_Job,
		fields: func(j *batchv1.Job) map[string]string {
			return map[string]string{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		},
		row: jobRow,
		create: func(n *batch.Job) {
			if !ptr.Deref(n.Spec.ManualSelector, false) {
				selectOwnPods(n)
			}
			n.Status, n.Generation = batch.JobStatus{}, 1
			jobapi.DropDisabledFields(&n.Spec, nil)
			podutil.DropDisabledTemplateFields(&n.Spec.Template, nil)
		},
		update: func(n, o *batch.Job) {
			n.Status = o.Status
			jobapi.DropDisabledFields(&n.Spec, &o.Spec)
			podutil.DropDisabledTemplateFields(&n.Spec.Template, &o.Spec.Template)
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status:   func(n, o *batch.Job) { n.Spec = o.Spec },
		validate: func(n *batch.Job) field.ErrorList { return validation.ValidateJobCreate(n, jobOptions(n, nil)) },
		validateUpdate: func(n, o *batch.Job) field.ErrorList {
			return validation.ValidateJobUpdate(n, o, jobOptions(n, o))
		},
		validateStatus: func(n, o *batch.Job) field.ErrorList {
			return validation.ValidateJobUpdateStatus(n, o, jobStatusOptions(n, o))
		},
		declared: batchv1defaults.Validate_Job,
		warn: func(n, o *batch.Job) []string {
			switch path := field.NewPath("spec"); {
			case o == nil:
				w := podNameWarning(n.Name, "Pod names and hostnames")
				return append(w, jobapi.WarningsForJobSpec(context.Background(), path, &n.Spec, nil)...)
			case n.Generation != o.Generation:
				return jobapi.WarningsForJobSpec(context.Background(), path, &n.Spec, &o.Spec)
			}
			return nil
		},
	})
}

// selectOwnPods labels the job's pods with its name and its identity, and selects them by the latter.
func selectOwnPods(j *batch.Job) {
	labels := &j.Spec.Template.Labels
	setAbsent(labels, batch.LegacyJobNameLabel, j.Name)
	setAbsent(labels, batch.JobNameLabel, j.Name)
	setAbsent(labels, batch.LegacyControllerUidLabel, string(j.UID))
	setAbsent(labels, batch.ControllerUidLabel, string(j.UID))
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	setAbsent(&j.Spec.Selector.MatchLabels, batch.ControllerUidLabel, string(j.UID))
}

// setAbsent leaves a value that the user has set: validation says whether it is the right one.
func setAbsent(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	if _, there := (*m)[key]; !there {
		(*m)[key] = value
	}
}

func jobRow(j *batchv1.Job, now time.Time) []any {
	names, images := containerCells(j.Spec.Template.Spec.Containers)
	return []any{
		j.Name, jobState(j), jobCompletions(j), jobDuration(j, now), age(j, now), names, images, metav1.FormatLabelSelector(j.Spec.Selector),
	}
}

// jobState is the first of what can be said of a job, the final things first.
func jobState(j *batchv1.Job) string {
	is := map[batchv1.JobConditionType]bool{}
	for _, c := range j.Status.Conditions {
		is[c.Type] = is[c.Type] || c.Status == "True"
	}
	switch {
	case is[batchv1.JobComplete]:
		return "Complete"
	case is[batchv1.JobFailed]:
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case is[batchv1.JobSuspended]:
		return "Suspended"
	case is[batchv1.JobFailureTarget]:
		return "FailureTarget"
	case is[batchv1.JobSuccessCriteriaMet]:
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func jobCompletions(j *batchv1.Job) string {
	switch parallel := ptr.Deref(j.Spec.Parallelism, 0); {
	case j.Spec.Completions != nil:
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case parallel > 1:
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallel)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func jobDuration(j *batchv1.Job, now time.Time) string {
	switch began, ended := j.Status.StartTime, j.Status.CompletionTime; {
	case began == nil:
		return ""
	case ended == nil:
		return duration.HumanDuration(now.Sub(began.Time))
	default:
		return duration.HumanDuration(ended.Sub(began.Time))
	}
}
