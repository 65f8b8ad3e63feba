package waves

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// Look takes in what a Deployment says of itself.
func (w *Workload) Look(d *appsv1.Deployment) {
	w.Pods = ptr.Deref(d.Spec.Replicas, 1)
	hold, err := fleetv1.ReadHold(d.Annotations)
	if err != nil {
		w.Trouble = err.Error()
		return
	}
	w.Hold = hold
	have := Images(&d.Spec.Template.Spec, w.Images)
	w.Present = slices.Equal(have, w.Images)
	for i := range w.Images {
		if !slices.ContainsFunc(have, func(c firmwarev1.ContainerImage) bool { return c.Container == w.Images[i].Container }) {
			w.Trouble = fmt.Sprintf("it has no container %q", w.Images[i].Container)
		}
	}
	if w.Pods > 1 && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		w.Trouble = "it recreates all its pods at once, and waves need the strategy RollingUpdate"
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
