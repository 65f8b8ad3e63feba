package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// AnnotationResources, on a container, is what it was made to have of the resources that can be changed while it runs, as Size says.
const AnnotationResources = "shoal.dev/resources"

// Size is what a container asks for and may have, of the resources that can be changed while it runs: cpu=100m/1,memory=/64Mi.
func Size(c *corev1.Container) string {
	return sizeOf(c, corev1.ResourceCPU) + "," + sizeOf(c, corev1.ResourceMemory)
}

func sizeOf(c *corev1.Container, name corev1.ResourceName) string {
	amount := func(list corev1.ResourceList) string {
		if q, ok := list[name]; ok {
			return q.String()
		}
		return ""
	}
	return string(name) + "=" + amount(c.Resources.Requests) + "/" + amount(c.Resources.Limits)
}

// has is the size that a running container has; empty: nobody knows.
func (o *Observed) has(c *runtime.Container) string {
	if size := o.Sizes[c.ID]; size != "" {
		return size
	}
	return c.Annotations[AnnotationResources]
}

// resize gives a running container the size that its pod says, or makes it start anew where its resize policy wants that.
func (s *stepper) resize(c *corev1.Container, current *runtime.Container) {
	has := s.o.has(current)
	if has == "" || has == Size(c) {
		return
	}
	for _, policy := range c.ResizePolicy {
		if policy.RestartPolicy == corev1.RestartContainer && !strings.Contains(","+has+",", ","+sizeOf(c, policy.ResourceName)+",") {
			s.add(Action{Kind: StopContainer, ID: current.ID, Container: c.Name, Why: "its " + string(policy.ResourceName) + " changes"})
			return
		}
	}
	s.add(Action{Kind: ResizeContainer, ID: current.ID, Container: c.Name})
}

// resizing reports whether a container does not have the size yet that its pod says.
func (v *view) resizing() bool {
	found := false
	Containers(v.p, func(c *corev1.Container, _ bool) {
		if current, _ := v.o.newest(c.Name, ""); current != nil && current.State == runtime.Running {
			has := v.o.has(current)
			found = found || has != "" && has != Size(c)
		}
	})
	return found
}

// size shows what a running container has, once it has what its pod says.
func (v *view) size(cs *corev1.ContainerStatus, c *corev1.Container, current *runtime.Container) {
	if v.o.has(current) != Size(c) || len(c.Resources.Requests)+len(c.Resources.Limits) == 0 {
		return
	}
	resources := c.Resources
	cs.Resources, cs.AllocatedResources = &resources, c.Resources.Requests
}
