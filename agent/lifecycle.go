package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/probe"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/volume"
)

// minGrace is what every container has to end by itself, whatever was spent before.
const minGrace = 2 * time.Second

func (w *worker) runSandbox(ctx context.Context, p *corev1.Pod, o *pod.Observed, a pod.Action) error {
	if err := w.a.volumes.Setup(p, w.a.facts(p, nil)); err != nil {
		if !errors.Is(err, volume.ErrTokenSoon) { // that one is no failure yet
			w.a.event(p, "", corev1.EventTypeWarning, "FailedMount", "MountVolume.SetUp failed: "+err.Error())
		}
		return err
	}
	if err := os.MkdirAll(w.a.podLogs(w.name, w.uid), 0o755); err != nil {
		return err
	}
	release, err := acquire(ctx, w.a.starts)
	if err != nil {
		return err
	}
	defer release()
	for _, old := range o.Sandboxes {
		if err := w.a.c.Runtime.StopSandbox(ctx, old.ID); err != nil { // it may still hold an address
			return err
		}
	}
	config, err := w.a.sandboxConfig(p, a.Attempt)
	if err != nil {
		return err
	}
	if err := w.a.limitPod(p); err != nil {
		w.a.c.Logger.Warn("the pod as a whole is not limited, only its containers are", "pod", w.name, "err", err)
	}
	handler, err := w.a.runtimeHandler(p)
	if err != nil {
		return err
	}
	_, err = w.a.c.Runtime.RunSandbox(ctx, config, handler)
	return err
}

// startContainer fetches the image, creates the container, starts it and runs its postStart hook.
func (w *worker) startContainer(ctx context.Context, t *task, p *corev1.Pod, o *pod.Observed) error {
	a, r := t.action, w.a.c.Runtime
	c, sandbox := pod.Find(p, a.Container), o.Sandboxes[0]
	sandboxConfig, err := w.a.sandboxConfig(p, sandbox.Attempt)
	if err != nil {
		return &problem{reasonConfig, err}
	}
	img, err := w.a.ensureImage(ctx, p, c, sandboxConfig, ran(o, c.Name))
	if err != nil {
		return err
	}
	config, err := w.a.containerConfig(ctx, p, c, a, sandbox, img)
	if err != nil {
		return &problem{reasonConfig, err}
	}
	if target, name := pod.Target(p, o, c.Name); target != nil {
		n := config.Linux.SecurityContext.NamespaceOptions
		n.Pid, n.TargetId = criapi.NamespaceMode_TARGET, target.ID
	} else if name != "" {
		return &problem{reasonConfig, fmt.Errorf("unable to find target container %s", name)}
	}
	release, err := acquire(ctx, w.a.starts)
	if err != nil {
		return err
	}
	defer release()
	id, err := r.CreateContainer(ctx, sandbox.ID, config, sandboxConfig)
	if err != nil {
		return &problem{reasonCreate, err}
	}
	w.a.setOwner(w, nil, map[string]runtime.State{id: runtime.Created}) // it may end before the next look
	w.a.event(p, c.Name, corev1.EventTypeNormal, "Created", "Created container: "+c.Name)
	if err := r.StartContainer(ctx, id); err != nil {
		return &problem{reasonRun, errors.Join(err, r.RemoveContainer(context.WithoutCancel(ctx), id))}
	}
	w.a.noteImage(img.ID, c.Image, false)
	w.a.metrics.containers.Inc()
	if a.Attempt > 0 {
		w.a.metrics.restarts.Inc()
	}
	w.a.event(p, c.Name, corev1.EventTypeNormal, "Started", "Started container: "+c.Name)
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	w.mu.Lock()
	t.started = id
	w.mu.Unlock()
	w.nudge() // show it as running
	if err := w.hook(ctx, c, c.Lifecycle.PostStart, id, sandbox.IPs); err != nil && ctx.Err() == nil {
		w.a.event(p, c.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: "+err.Error())
		return &problem{reasonHook, errors.Join(err, r.StopContainer(ctx, id, pod.Grace(p)))}
	}
	return nil
}

// ran is the id of the image that a container of the pod has run with before; empty: it has not.
func ran(o *pod.Observed, name string) string {
	for i := range o.Containers {
		if o.Containers[i].Name == name && !o.Containers[i].StartedAt.IsZero() {
			return o.Containers[i].ImageID
		}
	}
	return ""
}

// hook runs a lifecycle hook.
func (w *worker) hook(ctx context.Context, c *corev1.Container, h *corev1.LifecycleHandler, id string, ips []string) error {
	if h.Sleep != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		}
	}
	target := w.target(c, id, ips, time.Hour)
	return target.Check(ctx, corev1.ProbeHandler{Exec: h.Exec, HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket})
}

// target is how a container is asked something.
func (w *worker) target(c *corev1.Container, id string, ips []string, timeout time.Duration) probe.Target {
	ip := w.a.c.Address
	if len(ips) > 0 {
		ip = ips[0]
	}
	return probe.Target{IP: ip, Ports: c.Ports, Exec: func(ctx context.Context, command []string) ([]byte, int32, error) {
		output, code, err := w.a.c.Runtime.Exec(ctx, id, command, timeout)
		if errors.Is(err, runtime.ErrUnavailable) {
			err = fmt.Errorf("%w: %w", probe.ErrUnknown, err)
		}
		return output, code, err
	}}
}

// graceOf is how long a container to be stopped has.
func (w *worker) graceOf(a pod.Action, o *pod.Observed, last *corev1.Pod) time.Duration {
	if last == nil {
		for _, s := range o.Sandboxes {
			if seconds, err := strconv.Atoi(s.Annotations[pod.AnnotationGrace]); err == nil {
				return time.Duration(seconds) * time.Second
			}
		}
		return 30 * time.Second
	}
	if o.Halted {
		w.mu.Lock()
		defer w.mu.Unlock()
		return max(0, min(pod.Grace(last), w.halted.Sub(w.a.c.Now())-minGrace))
	}
	if w.stopping.IsZero() {
		if o.Ending != nil {
			return o.Ending.Grace
		}
		if h := o.Health[a.ID]; h.Failed != "" && h.Grace > 0 {
			return h.Grace
		}
		return pod.Grace(last)
	}
	return max(0, w.deadline(last).Sub(w.a.c.Now()))
}

// stopContainer runs the preStop hook and stops the container, within its grace.
func (w *worker) stopContainer(ctx context.Context, a pod.Action, o *pod.Observed, last *corev1.Pod, grace time.Duration) error {
	begin := time.Now()
	w.a.event(last, a.Container, corev1.EventTypeNormal, "Killing", fmt.Sprintf("Stopping container %s: %s", a.Container, a.Why))
	w.a.c.Logger.Info("stopping a container", "pod", w.name, "container", a.Container, "why", a.Why, "grace", grace)
	if last != nil && grace > 0 {
		if c := pod.Find(last, a.Container); c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
			var ips []string
			if len(o.Sandboxes) > 0 {
				ips = o.Sandboxes[0].IPs
			}
			hookCtx, cancel := context.WithTimeout(ctx, grace)
			err := w.hook(hookCtx, c, c.Lifecycle.PreStop, a.ID, ips)
			cancel()
			if err != nil && ctx.Err() == nil {
				w.a.event(last, a.Container, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
			}
		}
	}
	return w.a.c.Runtime.StopContainer(ctx, a.ID, max(grace-time.Since(begin), minGrace))
}

// resizeContainer gives a running container the resources that its pod says. The pod as a whole may have to grow before, or to shrink
// after it; where the kernel refuses the first, it takes the second.
func (w *worker) resizeContainer(ctx context.Context, a pod.Action, p *corev1.Pod) error {
	c := pod.Find(p, a.Container)
	_ = w.a.limitPod(p)
	if err := w.a.c.Runtime.ResizeContainer(ctx, a.ID, w.a.resources(p, c)); err != nil {
		return err
	}
	w.a.c.Logger.Info("a container has other resources", "pod", w.name, "container", c.Name, "resources", pod.Size(c))
	return w.a.limitPod(p)
}

func (w *worker) removeContainer(ctx context.Context, a pod.Action, last *corev1.Pod) error {
	if err := w.a.c.Runtime.RemoveContainer(ctx, a.ID); err != nil {
		return err
	}
	if last == nil {
		return nil
	}
	log := filepath.Join(w.a.podLogs(w.name, w.uid), a.Container, strconv.Itoa(int(a.Attempt))+".log")
	for _, file := range []string{log, log + ".1"} {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// updateVolumes writes what changed in configMaps and secrets into the volumes of the running pod.
func (w *worker) updateVolumes() {
	p, _ := w.wanted()
	if p == nil || p.DeletionTimestamp != nil {
		return
	}
	if err := w.a.volumes.Update(p, w.a.facts(p, nil)); err != nil {
		w.a.c.Logger.Warn("a pod's volumes are not up to date", "pod", w.name, "err", err)
	}
}

// acquire takes one of a bounded number of places.
func acquire(ctx context.Context, places chan struct{}) (release func(), err error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case places <- struct{}{}:
		return func() { <-places }, nil
	}
}
