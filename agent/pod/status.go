package pod

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// maxTermination bounds what of a container's last words goes into the status.
const maxTermination = 4096

// Status is the pod's status as kubelet would report it.
func Status(p *corev1.Pod, o *Observed, runtimeName, hostIP string, now time.Time) corev1.PodStatus {
	v := view{p: p, o: o, runtime: runtimeName, now: now}
	start := metav1.NewTime(started(o)).Rfc3339Copy()
	s := corev1.PodStatus{Phase: Phase(p, o), QOSClass: QoS(p), StartTime: &start, ObservedGeneration: p.Generation}
	if over, _ := expired(p, o, now); over && s.Phase != corev1.PodSucceeded {
		s.Phase, s.Reason = corev1.PodFailed, "DeadlineExceeded"
		s.Message = "Pod was active on the node longer than the specified deadline"
	} else if o.Prior != nil && s.Phase == corev1.PodFailed {
		s.Reason, s.Message = o.Prior.Reason, o.Prior.Message
	} else if o.Ending != nil && s.Phase != corev1.PodSucceeded {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, o.Ending.Reason, o.Ending.Message
	}
	v.phase = s.Phase
	setAddresses(&s, p, o, hostIP)
	initialized := v.initialized()
	Containers(p, func(c *corev1.Container, init bool) {
		cs := v.container(c, init, initialized)
		if init {
			s.InitContainerStatuses = append(s.InitContainerStatuses, cs)
		} else {
			s.ContainerStatuses = append(s.ContainerStatuses, cs)
		}
	})
	s.EphemeralContainerStatuses = v.looked()
	s.Conditions = v.conditions(&s)
	return s
}

func setAddresses(s *corev1.PodStatus, p *corev1.Pod, o *Observed, hostIP string) {
	if hostIP != "" {
		s.HostIP, s.HostIPs = hostIP, []corev1.HostIP{{IP: hostIP}}
	}
	sandbox := o.sandbox()
	switch {
	case sandbox != nil && p.Spec.HostNetwork && hostIP != "":
		s.PodIPs = []corev1.PodIP{{IP: hostIP}}
	case sandbox != nil && sandbox.Ready && len(sandbox.IPs) > 0:
		for _, ip := range sandbox.IPs {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
		}
	case o.Prior != nil: // what ended keeps the address it had
		s.PodIPs = o.Prior.PodIPs
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

// view is what the status of one moment is made from.
type view struct {
	p       *corev1.Pod
	o       *Observed
	runtime string
	now     time.Time
	phase   corev1.PodPhase
}

func (v *view) over() bool { return v.phase == corev1.PodSucceeded || v.phase == corev1.PodFailed }

// initialized reports whether all init containers are done.
func (v *view) initialized() bool {
	_, done := initPhase(v.p, v.o)
	return done
}

func (v *view) container(c *corev1.Container, init, initialized bool) corev1.ContainerStatus {
	current, before := v.o.newest(c.Name, "")
	started := false
	cs := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: &started}
	if current == nil {
		if prior := v.o.prior(c.Name); prior != nil && prior.ContainerID != "" && (v.over() || v.p.DeletionTimestamp != nil) {
			return *prior // its traces are gone, what it was is not
		}
		cs.State.Waiting = v.waiting(c, init, initialized)
		if prior := v.o.prior(c.Name); prior != nil {
			cs.RestartCount, cs.LastTerminationState = prior.RestartCount, prior.LastTerminationState
		}
		return cs
	}
	cs.RestartCount = int32(current.Attempt)
	cs.ContainerID, cs.ImageID = v.id(current), current.ImageID
	if before != nil && before.State == runtime.Exited {
		cs.LastTerminationState.Terminated = v.terminated(before)
	}
	switch current.State {
	case runtime.Running:
		h := v.o.health(current)
		started = h.Started
		cs.Ready = h.Started && h.Ready && (!init || Sidecar(c)) // an init container is ready when it is done
		v.size(&cs, c, current)
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(current.StartedAt).Rfc3339Copy()}
	case runtime.Exited, runtime.Unknown:
		cs.State.Terminated = v.terminated(current)
		cs.Ready = init && !Sidecar(c) && current.ExitCode == 0
		v.backingOff(&cs, c, current)
	default:
		cs.State.Waiting = v.waiting(c, init, initialized)
	}
	return cs
}

func (v *view) id(c *runtime.Container) string { return v.runtime + "://" + c.ID }

func (v *view) waiting(c *corev1.Container, init, initialized bool) *corev1.ContainerStateWaiting {
	if problem, ok := v.o.Problems[c.Name]; ok {
		return &corev1.ContainerStateWaiting{Reason: problem.Reason, Message: problem.Message}
	}
	if !init && len(v.p.Spec.InitContainers) > 0 && !initialized || init && len(v.p.Spec.InitContainers) > 1 {
		return &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

// backingOff shows a container between two runs as waiting, with the run that ended as its last state.
func (v *view) backingOff(cs *corev1.ContainerStatus, c *corev1.Container, current *runtime.Container) {
	if v.over() || v.p.DeletionTimestamp != nil || !restarts(v.p, c, current.ExitCode) {
		return
	}
	var waiting *corev1.ContainerStateWaiting
	if problem, ok := v.o.Problems[c.Name]; ok {
		waiting = &corev1.ContainerStateWaiting{Reason: problem.Reason, Message: problem.Message}
	} else if at, _ := backoff(current, v.now); v.now.Before(at) {
		waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
			at.Sub(current.FinishedAt).Round(time.Second), c.Name, v.p.Name, v.p.Namespace, v.p.UID)}
	}
	if waiting != nil {
		cs.LastTerminationState.Terminated, cs.State = cs.State.Terminated, corev1.ContainerState{Waiting: waiting}
	}
}

func (v *view) terminated(c *runtime.Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, ContainerID: v.id(c),
		StartedAt: metav1.NewTime(c.StartedAt).Rfc3339Copy(), FinishedAt: metav1.NewTime(c.FinishedAt).Rfc3339Copy(),
	}
	if c.State == runtime.Unknown {
		t.ExitCode, t.Reason, t.Message = 137, "ContainerStatusUnknown", "The container could not be located when the pod was terminated"
	}
	if message := v.o.Termination[c.ID]; message != "" {
		t.Message = message
	}
	t.Message = t.Message[:min(len(t.Message), maxTermination)]
	return t
}
