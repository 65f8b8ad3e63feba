package pod

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// terminal reports whether the pod has succeeded or failed for good.
func terminal(p *corev1.Pod, o *Observed) bool {
	phase := Phase(p, o)
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// Phase is the pod's place in its life, without regard to deadlines.
func Phase(p *corev1.Pod, o *Observed) corev1.PodPhase {
	if o.Prior != nil && (o.Prior.Phase == corev1.PodSucceeded || o.Prior.Phase == corev1.PodFailed) {
		return o.Prior.Phase // there is no way back
	}
	if phase, done := initPhase(p, o); !done {
		return phase
	}
	var waiting, running, ended, failed int
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		current, _ := o.newest(c.Name, "")
		switch {
		case current == nil || current.State == runtime.Created && current.Attempt == 0:
			waiting++
		case current.State == runtime.Running:
			running++
		case current.State == runtime.Exited && !restarts(p, c, current.ExitCode):
			ended++
			if current.ExitCode != 0 {
				failed++
			}
		default: // between two runs
			running++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case failed > 0:
		return corev1.PodFailed
	case ended > 0:
		return corev1.PodSucceeded
	}
	return corev1.PodPending
}

// initPhase is the phase while init containers are not done.
func initPhase(p *corev1.Pod, o *Observed) (phase corev1.PodPhase, done bool) {
	for _, c := range p.Spec.Containers {
		if current, _ := o.newest(c.Name, ""); current != nil {
			return "", true
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		current, _ := o.newest(c.Name, "")
		switch {
		case Sidecar(c):
			if current == nil || current.State != runtime.Running || !o.health(current).Started {
				return corev1.PodPending, false
			}
		case current == nil || current.State != runtime.Exited:
			return corev1.PodPending, false
		case current.ExitCode != 0:
			if !restarts(p, c, current.ExitCode) {
				return corev1.PodFailed, false
			}
			return corev1.PodPending, false
		}
	}
	return "", true
}
