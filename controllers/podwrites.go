package controllers

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// makePod makes one pod of a template, which it takes over. The error errKeep says that none can be made here any more, and that this is fine.
func (c *Controllers) makePod(ctx context.Context, owner api.Object, template *corev1.PodTemplateSpec) (*corev1.Pod, error) {
	return c.createPod(ctx, owner, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: owner.GetName() + "-", Labels: template.Labels, Annotations: template.Annotations, Finalizers: template.Finalizers,
		},
		Spec: template.Spec,
	})
}

// createPod makes a pod its owner's.
func (c *Controllers) createPod(ctx context.Context, owner api.Object, pod *corev1.Pod) (*corev1.Pod, error) {
	pod.Namespace, pod.OwnerReferences = owner.GetNamespace(), []metav1.OwnerReference{*metav1.NewControllerRef(owner, api.KindFor(owner).GVK)}
	created, err := c.client.Create(ctx, pod)
	switch {
	case err == nil:
		c.recorder.eventf(owner, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", created.GetName())
		return created.(*corev1.Pod), nil
	case ctx.Err() != nil:
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err):
		return nil, errKeep // the namespace ends, or has ended: there is nothing to try again
	default:
		c.recorder.eventf(owner, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
	}
	return nil, fmt.Errorf("create a pod: %w", err)
}

func (c *Controllers) deletePods(ctx context.Context, owner api.Object, doomed []*corev1.Pod) error {
	var group errgroup.Group
	group.SetLimit(podWritesAtOnce)
	for _, pod := range doomed {
		group.Go(func() error {
			_, err := c.client.Delete(ctx, key(pods, pod.Namespace, pod.Name), metav1.NewPreconditionDeleteOptions(string(pod.UID)))
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				return nil // gone already, or another pod by now: the next count tells
			}
			if err != nil {
				return fmt.Errorf("delete pod %s: %w", pod.Name, err)
			}
			c.recorder.eventf(owner, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
			return nil
		})
	}
	return group.Wait()
}
