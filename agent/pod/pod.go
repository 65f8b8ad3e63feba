// Package pod owns what one pod needs next (Step) and how it looks from outside (Status). It is pure: all it knows is what
// is wanted, what was observed, and the time; so it can be stopped and started at any point and goes on from there.
package pod

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// Annotations by which a restarted agent finds again what it decided before.
const (
	// AnnotationBackoff, on a container, is how long to wait before the next attempt should this one end.
	AnnotationBackoff = "shoal.dev/backoff"
	// AnnotationImage, on a container, is the image as the pod named it.
	AnnotationImage = "shoal.dev/image"
	// AnnotationGrace, on a sandbox, is the pod's termination grace in seconds, for when the pod itself is forgotten.
	AnnotationGrace = "shoal.dev/grace"
)

// Restart back-off as kubelet has it: the first restart is at once, the second after 10 s, doubled up to 5 min, and all is
// forgiven after a run of 10 min.
const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
	forgiven     = 2 * maxBackoff
)

// Observed is all that is known of the pod on this device.
type Observed struct {
	runtime.Pod
	// Health, by container id, is what probes and hooks say. None means: no probes, started and ready.
	Health map[string]Health
	// Problems, by container name, are why it cannot be started; "" is the sandbox with its volumes.
	Problems map[string]Problem
	// Prior is the status last reported, also before this agent started. Nil: never.
	Prior *corev1.PodStatus
	// Termination, by container id, is what a container left as its termination message.
	Termination map[string]string
	// Seen is when this device first knew of the pod.
	Seen time.Time
	// Sizes, by container id, are those that this agent gave to running containers; see Size.
	Sizes map[string]string
	// Halted: the device goes down. The containers end, and nothing else changes.
	Halted bool
	// Fenced: the control plane may run the pod elsewhere before long. The containers end until it is heard of again.
	Fenced bool
	// Ending is why this device ends the pod for good; nil: it does not.
	Ending *Ending
}

// Ending is why a device ends a pod for good, as failed.
type Ending struct {
	Reason, Message string
	// Grace is what its containers have to end.
	Grace time.Duration
}

// Health of a running container.
type Health struct {
	Started, Ready bool
	// Failed says why the container must be stopped: its liveness or startup probe failed too often. Empty: it need not.
	Failed string
	// Grace is how long it has to stop then, if the probe says so; 0: as long as its pod has.
	Grace time.Duration
}

// Problem is why something cannot be started right now.
type Problem struct {
	Reason, Message string
	// Retry is when to try again.
	Retry time.Time
	// Count is how often it failed in a row.
	Count int
}

// Kind of an action.
type Kind int

// The kinds of actions.
const (
	RunSandbox Kind = iota
	StopSandbox
	RemoveSandbox
	StartContainer
	StopContainer
	RemoveContainer
	// ResizeContainer gives a running container the resources that its pod says.
	ResizeContainer
	// Wait: nothing to do before Until, unless something is observed.
	Wait
	// Forget: nothing of the pod is left in the runtime; remove its files and report it as gone.
	Forget
)

func (k Kind) String() string {
	return [...]string{"RunSandbox", "StopSandbox", "RemoveSandbox", "StartContainer", "StopContainer", "RemoveContainer", "ResizeContainer", "Wait", "Forget"}[k]
}

// Action is one resumable step.
type Action struct {
	Kind Kind
	// ID is the sandbox or container that exists already.
	ID string
	// Container is the container's name.
	Container string
	Attempt   uint32
	// Backoff is what the new container gets as AnnotationBackoff.
	Backoff time.Duration
	// Why a container is stopped; Grace overrides the pod's for that (nil: the pod's).
	Why   string
	Until time.Time
}

// Containers calls f for each container of a pod, init containers first.
func Containers(p *corev1.Pod, f func(c *corev1.Container, init bool)) {
	for i := range p.Spec.InitContainers {
		f(&p.Spec.InitContainers[i], true)
	}
	for i := range p.Spec.Containers {
		f(&p.Spec.Containers[i], false)
	}
}

// Find returns the container of that name.
func Find(p *corev1.Pod, name string) *corev1.Container {
	for c := range All(p) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Sidecar reports whether an init container goes on running beside the pod's containers.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Grace is how long the pod's containers have between the request to stop and the kill.
func Grace(p *corev1.Pod) time.Duration {
	seconds := int64(30)
	if p.Spec.TerminationGracePeriodSeconds != nil {
		seconds = *p.Spec.TerminationGracePeriodSeconds
	}
	if p.DeletionGracePeriodSeconds != nil {
		seconds = *p.DeletionGracePeriodSeconds
	}
	return time.Duration(seconds) * time.Second
}

// newest returns the newest container of that name and the one before; in "" they may be in any sandbox.
func (o *Observed) newest(name, sandbox string) (current, before *runtime.Container) {
	for i := range o.Containers {
		c := &o.Containers[i]
		if c.Name != name || sandbox != "" && c.SandboxID != sandbox {
			continue
		}
		if current != nil {
			return current, c
		}
		current = c
	}
	return current, nil
}

// sandbox is the newest sandbox, nil if there is none.
func (o *Observed) sandbox() *runtime.Sandbox {
	if len(o.Sandboxes) == 0 {
		return nil
	}
	return &o.Sandboxes[0]
}

func (o *Observed) health(c *runtime.Container) Health {
	if h, ok := o.Health[c.ID]; ok {
		return h
	}
	return Health{Started: true, Ready: true}
}

func (o *Observed) prior(name string) *corev1.ContainerStatus {
	if o.Prior == nil {
		return nil
	}
	for _, list := range [][]corev1.ContainerStatus{
		o.Prior.ContainerStatuses, o.Prior.InitContainerStatuses, o.Prior.EphemeralContainerStatuses,
	} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// backoff returns when the container may be started again, and what its successor gets as back-off.
func backoff(c *runtime.Container, now time.Time) (at time.Time, next time.Duration) {
	if c.FinishedAt.Sub(c.StartedAt) > forgiven {
		return c.FinishedAt, firstBackoff
	}
	delay, err := time.ParseDuration(c.Annotations[AnnotationBackoff])
	if err != nil || delay < 0 {
		delay = 0
	}
	delay = min(delay, maxBackoff)
	at = c.FinishedAt.Add(delay)
	if latest := now.Add(delay); at.After(latest) { // the clock was set back
		at = latest
	}
	return at, min(max(2*delay, firstBackoff), maxBackoff)
}

// restarts reports whether a container that ended like this is to run again.
func restarts(p *corev1.Pod, c *corev1.Container, exitCode int32) bool {
	if isEphemeral(p, c.Name) {
		return false
	}
	for _, rule := range c.RestartPolicyRules {
		if rule.Action == corev1.ContainerRestartRuleActionRestart && ruleHolds(rule, exitCode) {
			return true
		}
	}
	policy := p.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	return true
}

func ruleHolds(rule corev1.ContainerRestartRule, exitCode int32) bool {
	if rule.ExitCodes == nil {
		return false
	}
	listed := slices.Contains(rule.ExitCodes.Values, exitCode)
	switch rule.ExitCodes.Operator {
	case corev1.ContainerRestartRuleOnExitCodesOpIn:
		return listed
	case corev1.ContainerRestartRuleOnExitCodesOpNotIn:
		return !listed
	}
	return false
}

// expired returns whether the pod is over its active deadline, or else when it will be (zero: never).
func expired(p *corev1.Pod, o *Observed, now time.Time) (bool, time.Time) {
	if p.Spec.ActiveDeadlineSeconds == nil {
		return false, time.Time{}
	}
	at := started(o).Add(time.Duration(*p.Spec.ActiveDeadlineSeconds) * time.Second)
	return !now.Before(at), at
}

func started(o *Observed) time.Time {
	if o.Prior != nil && o.Prior.StartTime != nil {
		return o.Prior.StartTime.Time
	}
	return o.Seen
}
