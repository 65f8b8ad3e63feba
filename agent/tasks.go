package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/volume"
)

// task is one action being done, beside the worker's loop.
type task struct {
	key    string
	action pod.Action
	cancel context.CancelFunc
	// started is the container that a StartContainer has started, while its postStart hook runs.
	started string
	// until is when a stopping container will be killed.
	until time.Time
	// size is what a resized container has then.
	size string
	err  error
}

// problem is an error with the reason that a pod's status shows for it.
type problem struct {
	reason string
	err    error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// Reasons for which a container cannot be started.
const (
	reasonConfig       = "CreateContainerConfigError"
	reasonCreate       = "CreateContainerError"
	reasonRun          = "RunContainerError"
	reasonPull         = "ErrImagePull"
	reasonPullBackOff  = "ImagePullBackOff"
	reasonNeverPull    = "ErrImageNeverPull"
	reasonHook         = "PostStartHookError"
	flipAfter          = 2 * time.Second
	maxProblemBackoff  = 5 * time.Minute
	pullProblemBackoff = 10 * time.Second
)

// launch has an action done, unless the same or one in its way is being done already: the next pass asks again.
func (w *worker) launch(ctx context.Context, a pod.Action, o *pod.Observed, p, last *corev1.Pod) {
	key := "c/" + a.Container
	switch a.Kind {
	case pod.RunSandbox, pod.StopSandbox:
		key = "s"
	case pod.RemoveSandbox:
		key = "x/" + a.ID
	case pod.RemoveContainer:
		if w.tasks[key] != nil {
			return
		}
		key = "r/" + a.ID
	}
	if w.a.c.Now().Before(w.paused[key]) {
		return
	}
	if running := w.tasks[key]; running != nil {
		if a.Kind == pod.StopContainer && running.action.Kind == pod.StopContainer && last != nil &&
			w.deadline(last).Before(running.until.Add(-time.Second)) {
			running.cancel() // the grace was shortened; the next pass stops it anew
		}
		return
	}
	if a.Kind == pod.RunSandbox || a.Kind == pod.StopSandbox || a.Kind == pod.RemoveSandbox && p == nil {
		for other := range w.tasks {
			if strings.HasPrefix(other, "c/") {
				return
			}
		}
	} else if w.tasks["s"] != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	t := &task{key: key, action: a, cancel: cancel}
	w.tasks[key] = t
	do := w.doing(t, o, p, last)
	go func() {
		defer cancel()
		t.err = do(ctx)
		w.results <- t // never blocks for long: the loop reads until all tasks are back
	}()
}

// doing returns what does the action.
func (w *worker) doing(t *task, o *pod.Observed, p, last *corev1.Pod) func(context.Context) error {
	a, r := t.action, w.a.c.Runtime
	switch a.Kind {
	case pod.RunSandbox:
		return func(ctx context.Context) error { return w.runSandbox(ctx, p, o, a) }
	case pod.StopSandbox:
		return func(ctx context.Context) error { return r.StopSandbox(ctx, a.ID) }
	case pod.RemoveSandbox:
		return func(ctx context.Context) error { return r.RemoveSandbox(ctx, a.ID) }
	case pod.StartContainer:
		return func(ctx context.Context) error { return w.startContainer(ctx, t, p, o) }
	case pod.StopContainer:
		grace := w.graceOf(a, o, last)
		t.until = w.a.c.Now().Add(grace)
		return func(ctx context.Context) error { return w.stopContainer(ctx, a, o, last, grace) }
	case pod.ResizeContainer:
		t.size = pod.Size(pod.Find(p, a.Container))
		return func(ctx context.Context) error { return w.resizeContainer(ctx, a, p) }
	case pod.RemoveContainer:
		return func(ctx context.Context) error { return w.removeContainer(ctx, a, last) }
	}
	return func(context.Context) error { return fmt.Errorf("unknown action %d", a.Kind) }
}

// settle takes the result of a task.
func (w *worker) settle(t *task) {
	delete(w.tasks, t.key)
	name := t.action.Container
	if t.action.Kind != pod.StartContainer && t.action.Kind != pod.RunSandbox {
		if t.err != nil && !errors.Is(t.err, context.Canceled) {
			w.a.c.Logger.Warn("a pod's step failed, trying again", "pod", w.name, "step", t.action.Kind.String(), "container", name, "err", t.err)
			// The loop comes back at once; without a pause a broken runtime would keep it busy.
			w.failed[t.key]++
			w.paused[t.key] = w.a.c.Now().Add(min(time.Second<<min(w.failed[t.key]-1, 6), time.Minute))
		} else {
			delete(w.failed, t.key)
		}
		if t.size != "" && t.err == nil {
			w.sizes[t.action.ID] = t.size
		}
		return
	}
	defer func() { w.waiting.Store(len(w.problems) > 0) }()
	if t.err == nil {
		delete(w.problems, name)
		return
	}
	if errors.Is(t.err, context.Canceled) {
		return
	}
	w.record(name, t.err)
}

// record keeps why something could not be started, and when to try again.
func (w *worker) record(name string, err error) {
	known := w.problems[name]
	now := w.a.c.Now()
	next := pod.Problem{Reason: "ContainerCreating", Message: err.Error(), Count: known.Count + 1}
	least := time.Second
	if name == "" {
		least = 100 * time.Millisecond // a network that is being set up comes soon
	}
	var p *problem
	if errors.As(err, &p) {
		next.Reason = p.reason
		if p.reason == reasonPull {
			least = pullProblemBackoff
		}
	}
	if errors.Is(err, runtime.ErrUnavailable) {
		next.Count = known.Count // not the pod's fault
		least = time.Second
	}
	next.Retry = now.Add(min(least<<min(known.Count, 12), maxProblemBackoff))
	w.problems[name] = next
	if errors.Is(err, volume.ErrTokenSoon) {
		return // no failure yet
	}
	if known.Message != next.Message || known.Reason != next.Reason && known.Reason != reasonPullBackOff {
		w.a.c.Logger.Warn("a pod cannot start, trying again", "pod", w.name, "container", name, "reason", next.Reason, "err", err)
	}
	_, last := w.wanted()
	if name == "" {
		w.a.event(last, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
	} else {
		w.a.event(last, name, corev1.EventTypeWarning, "Failed", "Error: "+next.Reason+": "+err.Error())
	}
}

// flipImageProblems turns a failed pull into a pull that waits, as kubelet shows it, and returns when to look again.
func (w *worker) flipImageProblems(now time.Time) (next time.Time) {
	for name, p := range w.problems {
		if p.Reason != reasonPull {
			continue
		}
		c := name
		if _, last := w.wanted(); last != nil {
			if spec := pod.Find(last, name); spec != nil {
				c = spec.Image
			}
		}
		if at := p.Retry.Add(flipAfter - pullProblemBackoff); now.Before(at) {
			next = earlier(next, at)
			continue
		}
		p.Reason, p.Message = reasonPullBackOff, fmt.Sprintf("Back-off pulling image %q: %s", c, p.Message)
		w.problems[name] = p
		w.nudge() // report it
	}
	return next
}

// abandonStarts ends starts of containers of a pod that is to end.
func (w *worker) abandonStarts() {
	for _, t := range w.tasks {
		if t.action.Kind == pod.StartContainer || t.action.Kind == pod.RunSandbox {
			t.cancel()
		}
	}
}

func (w *worker) deadline(p *corev1.Pod) time.Time { return w.stopping.Add(pod.Grace(p)) }
