package dispatch

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// mirrorAnnotation is on the pods that show a device's static pods in the API, as kubelet has it: the uid that the device has for it.
const mirrorAnnotation = "kubernetes.io/config.mirror"

// staticPod reads the report of a static pod; nil: it is of another pod.
func staticPod(node string, key store.Key, uid types.UID, value []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := pod.Unmarshal(value); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if pod.Annotations[mirrorAnnotation] == "" {
		return nil, nil
	}
	if pod.Annotations[mirrorAnnotation] != string(uid) || pod.Spec.NodeName != node || pod.Namespace != key.Namespace || pod.Name != key.Name {
		return nil, errForeign
	}
	if reaches(pod) {
		return nil, fmt.Errorf("a static pod must not name what is in the API: %w", errForeign)
	}
	return pod, nil
}

// reaches reports whether a pod names anything that its device would be given for that: a device chooses its static pods itself.
func reaches(pod *corev1.Pod) bool {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return true
		}
		for i := range projections(&v) {
			if v.Projected.Sources[i].ServiceAccountToken != nil {
				return true
			}
		}
	}
	return len(used(pod)) > 0 || pod.Spec.ServiceAccountName != ""
}

func projections(v *corev1.Volume) []corev1.VolumeProjection {
	if v.Projected == nil {
		return nil
	}
	return v.Projected.Sources
}

// isMirror reports whether a stored pod shows that static pod of that device.
func isMirror(stored *corev1.Pod, node string, uid types.UID) bool {
	return stored.Spec.NodeName == node && stored.Annotations[mirrorAnnotation] == string(uid)
}

// writeMirror has the API show a static pod. One that is of another file, or that somebody has deleted, is made anew: what runs on the
// device is up to its folder.
func (d *Dispatcher) writeMirror(ctx context.Context, node string, stored, static *corev1.Pod) error {
	if stored != nil && (stored.Spec.NodeName != node || stored.Annotations[mirrorAnnotation] == "") {
		return fmt.Errorf("a pod of that name is no static pod: %w", errForeign)
	}
	if stored != nil && (!isMirror(stored, node, static.UID) || stored.DeletionTimestamp != nil) {
		if err := d.removeMirror(ctx, stored); err != nil {
			return err
		}
		stored = nil
	}
	if stored == nil {
		if err := d.createMirror(ctx, node, static); err != nil {
			return err
		}
	}
	return d.modify(ctx, store.Key{Resource: pods, Namespace: static.Namespace, Name: static.Name}, "status", func(object api.Object) error {
		pod := object.(*corev1.Pod)
		if !isMirror(pod, node, static.UID) {
			return errNothing
		}
		pod.Status = mergePodStatus(pod.Status, static.Status)
		return nil
	})
}

func (d *Dispatcher) createMirror(ctx context.Context, node string, static *corev1.Pod) error {
	owner, ok := store.Get[corev1.Node](d.reader, "", node)
	if !ok {
		return errors.New("its node is not there")
	}
	mirror := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: static.Name, Namespace: static.Namespace, Labels: static.Labels, Annotations: static.Annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: owner.UID, Controller: ptr.To(true)}},
		},
		Spec: static.Spec,
	}
	if _, err := d.client.Create(ctx, mirror); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func (d *Dispatcher) removeMirror(ctx context.Context, stored *corev1.Pod) error {
	now := int64(0)
	_, err := d.client.Delete(ctx, store.KeyOf(d.reader, stored), &metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &stored.UID},
	})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
