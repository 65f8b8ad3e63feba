package pod

import (
	"iter"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// ephemeral returns the containers that somebody added to a running pod, to look into it, as what they are apart from that.
func ephemeral(p *corev1.Pod) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		for i := range p.Spec.EphemeralContainers {
			if !yield((*corev1.Container)(&p.Spec.EphemeralContainers[i].EphemeralContainerCommon)) {
				return
			}
		}
	}
}

// All returns every container of a pod: init containers, containers, ephemeral ones.
func All(p *corev1.Pod) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		more := true
		Containers(p, func(c *corev1.Container, _ bool) { more = more && yield(c) })
		for c := range ephemeral(p) {
			if more = more && yield(c); !more {
				return
			}
		}
	}
}

func isEphemeral(p *corev1.Pod, name string) bool {
	for c := range ephemeral(p) {
		if c.Name == name {
			return true
		}
	}
	return false
}

// Target is the container whose processes an ephemeral container sees, and what it is called. Nil with a name: it does not run.
func Target(p *corev1.Pod, o *Observed, name string) (*runtime.Container, string) {
	for _, e := range p.Spec.EphemeralContainers {
		if e.Name != name || e.TargetContainerName == "" {
			continue
		}
		if c, _ := o.newest(e.TargetContainerName, ""); c != nil && c.State == runtime.Running {
			return c, e.TargetContainerName
		}
		return nil, e.TargetContainerName
	}
	return nil, ""
}

// look starts ephemeral containers. Each has one run, whatever becomes of it.
func (s *stepper) look() {
	for c := range ephemeral(s.p) {
		current, _ := s.o.newest(c.Name, "")
		switch prior := s.o.prior(c.Name); {
		case current != nil && current.State == runtime.Created: // the agent died between creating and starting it
			s.add(Action{Kind: RemoveContainer, ID: current.ID, Container: c.Name})
		case current == nil && (prior == nil || prior.ContainerID == ""):
			s.start(c)
		}
	}
}

// looked is the status of the ephemeral containers, which are never ready: nothing may rely on one.
func (v *view) looked() (all []corev1.ContainerStatus) {
	for c := range ephemeral(v.p) {
		cs := v.container(c, false, true)
		cs.Ready, cs.Started = false, nil
		all = append(all, cs)
	}
	return all
}
