package controllers

import (
	"context"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/store"
)

// addJobExpiry deletes jobs, and their pods with them, when ttlSecondsAfterFinished have passed since they finished.
func (c *Controllers) addJobExpiry() {
	l := c.newLoop("job-expiry", 1, c.expireJob)
	c.follow(jobs, "", each(func(job *batchv1.Job, deleted bool) {
		if !deleted && job.Spec.TTLSecondsAfterFinished != nil && job.DeletionTimestamp == nil {
			l.add(key(jobs, job.Namespace, job.Name))
		}
	}))
}

func (c *Controllers) expireJob(ctx context.Context, k store.Key) (time.Duration, error) {
	job, ok := store.Get[batchv1.Job](c.reader, k.Namespace, k.Name)
	if !ok || job.DeletionTimestamp != nil || job.Spec.TTLSecondsAfterFinished == nil {
		return 0, nil
	}
	at := slices.IndexFunc(job.Status.Conditions, func(j batchv1.JobCondition) bool {
		return (j.Type == batchv1.JobComplete || j.Type == batchv1.JobFailed) && j.Status == corev1.ConditionTrue
	})
	if at < 0 {
		return 0, nil
	}
	life := time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second
	if left := job.Status.Conditions[at].LastTransitionTime.Add(life).Sub(c.now()); left > 0 {
		return left, nil
	}
	opts := metav1.NewPreconditionDeleteOptions(string(job.UID))
	opts.Preconditions.ResourceVersion = &job.ResourceVersion // it may have been given more time
	opts.PropagationPolicy = ptr.To(metav1.DeletePropagationForeground)
	_, err := c.client.Delete(ctx, k, opts)
	if apierrors.IsConflict(err) {
		return time.Second, nil
	}
	return 0, ignoreGone(err)
}
