package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// Step returns what to do now. p is nil when the control plane no longer wants the pod. Doing all the actions, observing
// and stepping again comes to an end; doing one of them twice does no harm; a healthy container is never stopped unless p
// says so. Actions of one call may run at the same time.
func Step(p *corev1.Pod, o *Observed, now time.Time) []Action {
	if p == nil || p.DeletionTimestamp != nil {
		return tearDown(p, o)
	}
	if o.Halted {
		return stopAll(p, o, "the device goes down")
	}
	if o.Fenced {
		return stopAll(p, o, "the control plane has not been heard of for too long")
	}
	over, deadline := expired(p, o, now)
	switch {
	case over:
		return finish(p, o, "its pod ran longer than activeDeadlineSeconds")
	case o.Ending != nil:
		return finish(p, o, o.Ending.Reason+": "+o.Ending.Message)
	case terminal(p, o):
		return finish(p, o, "its pod is over")
	}
	s := stepper{p: p, o: o, now: now}
	s.run()
	if !deadline.IsZero() {
		s.add(Action{Kind: Wait, Until: deadline})
	}
	return s.actions
}

type stepper struct {
	p       *corev1.Pod
	o       *Observed
	now     time.Time
	sandbox string
	actions []Action
}

func (s *stepper) add(a Action) { s.actions = append(s.actions, a) }

func (s *stepper) run() {
	sandbox := s.o.sandbox()
	if sandbox == nil || !sandbox.Ready {
		s.newSandbox(sandbox)
		return
	}
	s.sandbox = sandbox.ID
	s.look()
	if s.initialize() {
		for i := range s.p.Spec.Containers {
			s.keep(&s.p.Spec.Containers[i])
		}
	}
	s.prune()
}

// newSandbox replaces a sandbox that is gone. What still runs in it has lost its network and is stopped first.
func (s *stepper) newSandbox(old *runtime.Sandbox) {
	for _, c := range s.o.Containers {
		if c.State == runtime.Running || c.State == runtime.Unknown {
			s.add(Action{Kind: StopContainer, ID: c.ID, Container: c.Name, Why: "its pod's sandbox is gone"})
		}
	}
	if len(s.actions) > 0 {
		return
	}
	if problem := s.o.Problems[""]; s.now.Before(problem.Retry) {
		s.add(Action{Kind: Wait, Until: problem.Retry})
		return
	}
	a := Action{Kind: RunSandbox}
	if old != nil {
		a.Attempt = old.Attempt + 1
	}
	s.add(a)
}

// initialize moves the init containers on, in order, and reports whether the others may run.
func (s *stepper) initialize() bool {
	done := false
	for _, c := range s.p.Spec.Containers {
		if current, _ := s.o.newest(c.Name, s.sandbox); current != nil {
			done = true // they started, so all before them was done; its traces may be gone
		}
	}
	for i := range s.p.Spec.InitContainers {
		c := &s.p.Spec.InitContainers[i]
		current, _ := s.o.newest(c.Name, s.sandbox)
		if Sidecar(c) {
			s.keep(c)
			if !done && (current == nil || current.State != runtime.Running || !s.o.health(current).Started) {
				return false
			}
			continue
		}
		if done || current != nil && current.State == runtime.Exited && current.ExitCode == 0 {
			continue
		}
		if current == nil {
			s.start(c)
		} else {
			s.keep(c)
		}
		return false
	}
	return true
}

// keep makes a container run, as its pod's restart policy says.
func (s *stepper) keep(c *corev1.Container) {
	current, _ := s.o.newest(c.Name, s.sandbox)
	if current == nil {
		if old, _ := s.o.newest(c.Name, ""); old != nil && !restarts(s.p, c, old.ExitCode) {
			return // it had its run in a sandbox before
		}
		s.start(c)
		return
	}
	switch current.State {
	case runtime.Created: // the agent died between creating and starting it
		s.add(Action{Kind: RemoveContainer, ID: current.ID, Container: c.Name})
	case runtime.Unknown:
		s.add(Action{Kind: StopContainer, ID: current.ID, Container: c.Name, Why: "its state is unknown"})
	case runtime.Running:
		if why := s.o.health(current).Failed; why != "" {
			s.add(Action{Kind: StopContainer, ID: current.ID, Container: c.Name, Why: why})
		} else if was, ok := current.Annotations[AnnotationImage]; ok && was != c.Image {
			s.add(Action{Kind: StopContainer, ID: current.ID, Container: c.Name, Why: "its image changes to " + c.Image})
		} else {
			s.resize(c, current)
		}
	case runtime.Exited:
		if was, ok := current.Annotations[AnnotationImage]; restarts(s.p, c, current.ExitCode) || ok && was != c.Image {
			s.start(c)
		}
	}
}

// start starts a container for the first time or again, when back-off and problems allow it.
func (s *stepper) start(c *corev1.Container) {
	a := Action{Kind: StartContainer, Container: c.Name}
	var notBefore time.Time
	if old, _ := s.o.newest(c.Name, ""); old != nil {
		a.Attempt = old.Attempt + 1
		if old.SandboxID == s.sandbox {
			notBefore, a.Backoff = backoff(old, s.now)
		} else {
			_, a.Backoff = backoff(old, s.now) // a new sandbox, after a reboot for example, is no crash of the container
		}
	} else if prior := s.o.prior(c.Name); prior != nil && prior.ContainerID != "" {
		a.Attempt = uint32(prior.RestartCount) + 1
	}
	if problem := s.o.Problems[c.Name]; problem.Retry.After(notBefore) {
		notBefore = problem.Retry
	}
	if s.now.Before(notBefore) {
		a = Action{Kind: Wait, Until: notBefore}
	}
	s.add(a)
}

// prune removes what nobody looks at any more: all but the last two runs of each container, and empty old sandboxes.
func (s *stepper) prune() {
	runs, used := map[string]int{}, map[string]bool{}
	for _, c := range s.o.Containers {
		runs[c.Name]++
		if runs[c.Name] > 2 && c.State == runtime.Exited {
			s.add(Action{Kind: RemoveContainer, ID: c.ID, Container: c.Name, Attempt: c.Attempt})
			continue
		}
		used[c.SandboxID] = true
	}
	for _, old := range s.o.Sandboxes[1:] {
		if !used[old.ID] {
			s.add(Action{Kind: RemoveSandbox, ID: old.ID})
		}
	}
}

// finish ends a pod that is over but stays for its status and logs.
func finish(p *corev1.Pod, o *Observed, why string) []Action {
	if stops := stopAll(p, o, why); len(stops) > 0 {
		return stops
	}
	var actions []Action
	for _, s := range o.Sandboxes {
		if s.Ready {
			actions = append(actions, Action{Kind: StopSandbox, ID: s.ID})
		}
	}
	return actions
}

// tearDown ends a pod and leaves nothing.
func tearDown(p *corev1.Pod, o *Observed) []Action {
	if actions := finish(p, o, "its pod is over"); len(actions) > 0 {
		return actions
	}
	var actions []Action
	for _, s := range o.Sandboxes {
		actions = append(actions, Action{Kind: RemoveSandbox, ID: s.ID})
	}
	if len(actions) > 0 {
		return actions
	}
	for _, c := range o.Containers {
		actions = append(actions, Action{Kind: RemoveContainer, ID: c.ID, Container: c.Name, Attempt: c.Attempt})
	}
	if len(actions) > 0 {
		return actions
	}
	return []Action{{Kind: Forget}}
}

// stopAll stops the containers at the same time, and after them the sidecars in the reverse of the order they started in.
func stopAll(p *corev1.Pod, o *Observed, why string) []Action {
	var actions []Action
	sidecars := map[string]*runtime.Container{}
	for i := range o.Containers {
		c := &o.Containers[i]
		if c.State != runtime.Running && c.State != runtime.Unknown {
			continue
		}
		if p != nil {
			if spec := Find(p, c.Name); spec != nil && Sidecar(spec) {
				sidecars[c.Name] = c
				continue
			}
		}
		actions = append(actions, Action{Kind: StopContainer, ID: c.ID, Container: c.Name, Why: why})
	}
	if len(actions) > 0 || len(sidecars) == 0 {
		return actions
	}
	for i := len(p.Spec.InitContainers) - 1; i >= 0; i-- {
		if c := sidecars[p.Spec.InitContainers[i].Name]; c != nil {
			return []Action{{Kind: StopContainer, ID: c.ID, Container: c.Name, Why: why}}
		}
	}
	return nil
}
