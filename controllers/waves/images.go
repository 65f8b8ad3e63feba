package waves

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// App is what waves have to know of a workload of the cluster, whatever its kind.
type App struct {
	Meta     *metav1.ObjectMeta
	Template *corev1.PodTemplateSpec
	// Pods is how many it is to have.
	Pods int32
	// AllAtOnce: it does not replace its pods bit by bit.
	AllAtOnce bool
}

// AppOf looks at a Deployment, DaemonSet or StatefulSet; nil at anything else. What is changed in the template and the metadata is changed in the object.
func AppOf(object any) *App {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return &App{&o.ObjectMeta, &o.Spec.Template, ptr.Deref(o.Spec.Replicas, 1), o.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType}
	case *appsv1.DaemonSet:
		return &App{&o.ObjectMeta, &o.Spec.Template, o.Status.DesiredNumberScheduled, o.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType}
	case *appsv1.StatefulSet:
		return &App{&o.ObjectMeta, &o.Spec.Template, ptr.Deref(o.Spec.Replicas, 1), o.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType}
	}
	return nil
}

// Look takes in what an app says of itself.
func (w *Workload) Look(a *App) {
	w.Pods = a.Pods
	hold, err := fleetv1.ReadHold(a.Meta.Annotations)
	if err != nil {
		w.Trouble = err.Error()
		return
	}
	w.Hold = hold
	have := Images(&a.Template.Spec, w.Images)
	w.Present = slices.Equal(have, w.Images)
	for i := range w.Images {
		if !slices.ContainsFunc(have, func(c firmwarev1.ContainerImage) bool { return c.Container == w.Images[i].Container }) {
			w.Trouble = fmt.Sprintf("it has no container %q", w.Images[i].Container)
		}
	}
	if w.Pods > 1 && a.AllAtOnce {
		w.Trouble = "it does not replace its pods bit by bit, and waves need the strategy RollingUpdate"
	}
}

// Images are the images that a pod has in the containers that a list names, in the list's order.
func Images(pod *corev1.PodSpec, of []firmwarev1.ContainerImage) []firmwarev1.ContainerImage {
	var have []firmwarev1.ContainerImage
	for i := range of {
		if image := imageOf(pod, of[i].Container); image != nil {
			have = append(have, firmwarev1.ContainerImage{Container: of[i].Container, Image: *image})
		}
	}
	return have
}

// SetImages gives a pod's containers images.
func SetImages(pod *corev1.PodSpec, images []firmwarev1.ContainerImage) {
	for i := range images {
		if image := imageOf(pod, images[i].Container); image != nil {
			*image = images[i].Image
		}
	}
}

func imageOf(pod *corev1.PodSpec, container string) *string {
	for _, list := range [][]corev1.Container{pod.Containers, pod.InitContainers} {
		for i := range list {
			if list[i].Name == container {
				return &list[i].Image
			}
		}
	}
	return nil
}
