package controllers

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/scheduler"
	"github.com/shoal-edge/shoal/store"
)

// maxBindings is how many bindings are under way at once: placing is quick, making a binding durable is not.
const maxBindings = 16

// errNotOurs says that a pod needs no node any more.
var errNotOurs = errors.New("the pod is not to be placed any more")

// placement is the scheduler's loop. It keeps the scheduler's snapshot up to date from the watches, takes the pods that
// wait, most important first, and binds them. A pod that fits nowhere waits for a change that may help it.
type placement struct {
	c      *Controllers
	logger *slog.Logger
	queue  *podQueue
	vols   *volumes

	mu       sync.Mutex // guards what follows
	snapshot *scheduler.Snapshot
	binding  map[types.UID]bool // the pod has its room in the snapshot, but no node in the store yet
}

func (c *Controllers) addScheduler(vols *volumes) {
	p := &placement{
		c: c, vols: vols, logger: c.logger.With("controller", "scheduler"), queue: newPodQueue(),
		snapshot: scheduler.NewSnapshot(), binding: map[types.UID]bool{},
	}
	c.follow(nodes, "", p.nodeReader())
	c.follow(pods, "", p.podReader())
	c.follow(namespaces, "", each(p.namespaceChanged))
	c.follow(persistentVolumeClaims, "", each(func(*corev1.PersistentVolumeClaim, bool) { p.queue.wake(false) }))
	c.follow(persistentVolumes, "", each(func(*corev1.PersistentVolume, bool) { p.queue.wake(false) }))
	c.runners = append(c.runners, p.run)
}

// run places pods until ctx ends.
func (p *placement) run(ctx context.Context) error {
	defer p.queue.close()
	bindings, bindCtx := errgroup.WithContext(ctx)
	bindings.SetLimit(maxBindings)
	for {
		w, ok := p.queue.next(ctx)
		if !ok {
			return bindings.Wait()
		}
		pod, ok := store.Get[corev1.Pod](p.c.reader, w.key.Namespace, w.key.Name)
		if !ok || !wantsNode(pod) {
			p.queue.remove(w.key)
			continue
		}
		wanted, why := p.vols.withVolumes(pod)
		if why != "" {
			p.queue.park(w)
			p.refuse(ctx, pod, why)
			continue
		}
		decision := p.assume(wanted)
		if decision.Node == "" {
			p.queue.park(w)
			p.refuse(ctx, pod, decision.Explain())
			continue
		}
		bindings.Go(func() error {
			p.bind(bindCtx, pod, decision.Node, w)
			return nil
		})
	}
}

// wantsNode reports whether a pod is ours to place, now.
func wantsNode(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && !scheduler.Finished(pod) && len(pod.Spec.SchedulingGates) == 0 &&
		(pod.Spec.SchedulerName == "" || pod.Spec.SchedulerName == corev1.DefaultSchedulerName)
}

// assume picks a node and takes the room on it at once, so that the next pod does not get the same room.
func (p *placement) assume(pod *corev1.Pod) scheduler.Decision {
	p.mu.Lock()
	defer p.mu.Unlock()
	decision := p.snapshot.Place(pod)
	if decision.Node != "" {
		assumed := *pod
		assumed.Spec.NodeName = decision.Node
		p.snapshot.SetPod(&assumed)
		p.binding[pod.UID] = true
	}
	return decision
}

// bind makes a placement durable, or takes it back.
func (p *placement) bind(ctx context.Context, pod *corev1.Pod, node string, w *waitingPod) {
	err := p.modify(ctx, "binding", pod, func(current *corev1.Pod) {
		current.Spec.NodeName = node
		setPodCondition(&current.Status, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(p.c.now()),
			ObservedGeneration: current.Generation,
		})
	})
	p.settle(pod, err)
	switch {
	case err == nil:
		p.queue.remove(w.key)
		p.queue.wake(true)
		p.c.recorder.eventf(pod, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node)
	case ctx.Err() != nil:
	default:
		if !isGone(err) {
			p.logger.Warn("binding failed, will try again", "pod", pod.Namespace+"/"+pod.Name, "node", node, "error", err)
		}
		p.queue.retry(w)
	}
}

// settle ends a binding: when it failed, the room is free again, unless the pod got a node all the same.
func (p *placement) settle(pod *corev1.Pod, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.binding, pod.UID)
	current, ok := store.Get[corev1.Pod](p.c.reader, pod.Namespace, pod.Name)
	if err == nil && ok && current.UID == pod.UID {
		return
	}
	p.snapshot.RemovePod(pod.UID)
	if ok {
		p.snapshot.SetPod(current)
	}
}

// refuse tells why a pod fits nowhere.
func (p *placement) refuse(ctx context.Context, pod *corev1.Pod, message string) {
	p.c.recorder.Event(pod, corev1.EventTypeWarning, "FailedScheduling", message)
	err := p.modify(ctx, "status", pod, func(current *corev1.Pod) {
		setPodCondition(&current.Status, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message,
			LastTransitionTime: metav1.NewTime(p.c.now()), ObservedGeneration: current.Generation,
		})
	})
	if err != nil && !isGone(err) && ctx.Err() == nil {
		p.logger.Warn("could not tell why a pod waits", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

func isGone(err error) bool { return errors.Is(err, errNotOurs) || apierrors.IsNotFound(err) }

// modify changes a pod that still wants a node.
func (p *placement) modify(ctx context.Context, sub string, pod *corev1.Pod, change func(*corev1.Pod)) error {
	_, err := p.c.client.Modify(ctx, key(pods, pod.Namespace, pod.Name), sub, func(object api.Object) error {
		current := object.(*corev1.Pod)
		if current.UID != pod.UID || !wantsNode(current) {
			return errNotOurs
		}
		change(current)
		return nil
	})
	return err
}

// setPodCondition replaces a condition; the time of the last transition stays unless the status changes.
func setPodCondition(status *corev1.PodStatus, condition corev1.PodCondition) {
	for i := range status.Conditions {
		older := &status.Conditions[i]
		if older.Type != condition.Type {
			continue
		}
		if older.Status == condition.Status {
			condition.LastTransitionTime = older.LastTransitionTime
		}
		*older = condition
		return
	}
	status.Conditions = append(status.Conditions, condition)
}
