package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	jobapi "k8s.io/kubernetes/pkg/api/job"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchv1defaults "k8s.io/kubernetes/pkg/apis/batch/v1"
	"k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/utils/ptr"
)

func cronJobs() *Kind {
	spec, status := batchv1.CronJobSpec{}.SwaggerDoc(), batchv1.CronJobStatus{}.SwaggerDoc()
	return install[batchv1.CronJob](&Kind{
		GVK:          batchv1.SchemeGroupVersion.WithKind("CronJob"),
		Resource:     "cronjobs",
		ShortNames:   []string{"cj"},
		Categories:   []string{"all"},
		Namespaced:   true,
		Subresources: []string{"status"},
		NewList:      func() runtime.Object { return &batchv1.CronJobList{} },
		Columns: append([]Column{
			nameColumn(), text("Schedule", spec["schedule"]), text("Timezone", spec["timeZone"]), boolean("Suspend", spec["suspend"]),
			integer("Active", status["active"]), text("Last Schedule", status["lastScheduleTime"]), ageColumn(),
		}, append(templateColumns(), wide("Selector", batchv1.JobSpec{}.SwaggerDoc()["selector"]))...),
	}, strategy[batchv1.CronJob, batch.CronJob]{
		in:       batchv1defaults.Convert_v1_CronJob_To_batch_CronJob,
		out:      batchv1defaults.Convert_batch_CronJob_To_v1_CronJob,
		defaults: batchv1defaults.SetObjectDefaults_CronJob,
		row:      cronJobRow,
		create: func(n *batch.CronJob) {
			n.Status, n.Generation = batch.CronJobStatus{}, 1
			jobapi.DropDisabledFields(&n.Spec.JobTemplate.Spec, nil)
			podutil.DropDisabledTemplateFields(&n.Spec.JobTemplate.Spec.Template, nil)
		},
		update: func(n, o *batch.CronJob) {
			n.Status = o.Status
			jobapi.DropDisabledFields(&n.Spec.JobTemplate.Spec, &o.Spec.JobTemplate.Spec)
			podutil.DropDisabledTemplateFields(&n.Spec.JobTemplate.Spec.Template, &o.Spec.JobTemplate.Spec.Template)
			n.Generation = nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *batch.CronJob) { n.Spec = o.Spec },
		validate: func(n *batch.CronJob) field.ErrorList {
			return validation.ValidateCronJobCreate(n, templateOptions(&n.Spec.JobTemplate.Spec.Template, nil))
		},
		validateUpdate: func(n, o *batch.CronJob) field.ErrorList {
			opts := templateOptions(&n.Spec.JobTemplate.Spec.Template, &o.Spec.JobTemplate.Spec.Template)
			return validation.ValidateCronJobUpdate(n, o, opts)
		},
		validateStatus: func(_, _ *batch.CronJob) field.ErrorList { return nil },
		declared:       batchv1defaults.Validate_CronJob,
		warn:           cronJobWarnings,
	})
}

func cronJobWarnings(n, o *batch.CronJob) []string {
	path, spec := field.NewPath("spec", "jobTemplate", "spec"), &n.Spec.JobTemplate.Spec
	if o == nil {
		w := podNameWarning(n.Name, "Pod names and hostnames")
		return append(w, jobapi.WarningsForJobSpec(context.Background(), path, spec, nil)...)
	}
	var w []string
	if n.Generation != o.Generation {
		w = jobapi.WarningsForJobSpec(context.Background(), path, spec, &o.Spec.JobTemplate.Spec)
	}
	if strings.Contains(n.Spec.Schedule, "TZ") {
		w = append(w, fmt.Sprintf("cannot use TZ or CRON_TZ in %s, use timeZone instead, see "+
			"https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", field.NewPath("spec", "spec", "schedule")))
	}
	return w
}

func cronJobRow(c *batchv1.CronJob, now time.Time) []any {
	last, suspend := "<none>", "<unset>"
	if t := c.Status.LastScheduleTime; t != nil {
		last = since(t.Time, now)
	}
	if c.Spec.Suspend != nil {
		suspend = map[bool]string{true: "True", false: "False"}[*c.Spec.Suspend]
	}
	names, images := containerCells(c.Spec.JobTemplate.Spec.Template.Spec.Containers)
	return []any{
		c.Name, c.Spec.Schedule, ptr.Deref(c.Spec.TimeZone, "<none>"), suspend, int64(len(c.Status.Active)), last, age(c, now), names, images,
		metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector),
	}
}
