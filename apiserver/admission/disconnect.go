package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/store"
)

// disconnect refuses pods that say in no known words what becomes of them when their device cannot be heard, and changes of that: the
// device may not hear of a change, and then the two sides would go by different words.
func disconnect() Plugin {
	return Plugin{Name: "Disconnect", Review: func(_ context.Context, a *store.Admission) error {
		pod, ok := a.Object.(*corev1.Pod)
		if !ok || a.Subresource != "" {
			return nil
		}
		path := field.NewPath("metadata", "annotations").Key(fleetv1.DisconnectAnnotation)
		text, is := pod.Annotations[fleetv1.DisconnectAnnotation]
		switch a.Operation {
		case store.OpCreate:
			if _, err := fleetv1.ReadDisconnect(pod.Annotations); err != nil {
				return invalidPod(pod, field.Invalid(path, text, err.Error()))
			}
		case store.OpUpdate:
			old, ok := a.Old.(*corev1.Pod)
			if !ok {
				return nil
			}
			if before, was := old.Annotations[fleetv1.DisconnectAnnotation]; was != is || before != text {
				return invalidPod(pod, field.Forbidden(path, "may not change while the pod is there: its device may not hear of it"))
			}
		}
		return nil
	}}
}

func invalidPod(pod *corev1.Pod, err *field.Error) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), pod.Name, field.ErrorList{err})
}
