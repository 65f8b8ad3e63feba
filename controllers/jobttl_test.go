package controllers

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func TestFinishedJobsExpire(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		k := store.KeyOf(c.durable, c.create(&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "default"}, Spec: batchv1.JobSpec{
			TTLSecondsAfterFinished: ptr.To[int32](60),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}},
			}},
		}}))
		c.after(time.Hour)
		if !c.exists(k) {
			t.Fatal("a job that runs expired")
		}
		c.modify(k, "status", func(o api.Object) {
			now := metav1.Now()
			o.(*batchv1.Job).Status = batchv1.JobStatus{StartTime: &now, CompletionTime: &now, Succeeded: 1, Conditions: []batchv1.JobCondition{
				{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, LastTransitionTime: now},
				{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: now},
			}}
		})
		c.after(50 * time.Second)
		if !c.exists(k) {
			t.Fatal("it expired too early")
		}
		c.after(15 * time.Second)
		if c.exists(k) {
			t.Error("it is still there")
		}
	})
}
