package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/store"
)

// eviction deletes the pods that do not tolerate a NoExecute taint of their node, each when its time is up. It looks at a
// node as a whole and sleeps until the next pod's time; a taint that has gone by then evicts nobody.
type eviction struct {
	c     *Controllers
	loop  *loop
	start time.Time

	mu      sync.Mutex
	tainted map[string]map[taintOn]since // by node
}

// since is since when a taint counts, by our monotonic clock, and since when this process has seen it.
type since struct{ counts, seen time.Time }

// taintOn is one taint as it was added.
type taintOn struct {
	key   string
	added int64
}

func (c *Controllers) addEviction() {
	e := &eviction{c: c, start: time.Now(), tainted: map[string]map[taintOn]since{}}
	e.loop = c.newLoop("eviction", 1, e.reconcile)
	c.follow(nodes, "", each(func(node *corev1.Node, deleted bool) {
		if e.note(node, deleted) {
			e.loop.add(key(nodes, "", node.Name))
		}
	}))
	c.follow(pods, "", each(func(pod *corev1.Pod, deleted bool) {
		if !deleted && pod.DeletionTimestamp == nil && e.isTainted(pod.Spec.NodeName) {
			e.loop.add(key(nodes, "", pod.Spec.NodeName))
		}
	}))
}

// note keeps since when each taint counts: since it was added, as far as that can be told. A clock that was set forward, or
// another server's, does not make a taint older than we have seen it.
func (e *eviction) note(node *corev1.Node, deleted bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	older := e.tainted[node.Name]
	delete(e.tainted, node.Name)
	if deleted {
		return false
	}
	taints := map[taintOn]since{}
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		at, ok := older[identify(t)]
		if !ok {
			at.seen = time.Now()
			at.counts = at.seen
			if t.TimeAdded != nil {
				// The stored time is cut off to seconds: a taint that looks that young is new.
				if age := e.c.now().Sub(t.TimeAdded.Time); age > time.Second {
					at.counts = at.counts.Add(-age)
				}
			}
		}
		taints[identify(t)] = at
	}
	if len(taints) > 0 {
		e.tainted[node.Name] = taints
	}
	return len(taints) > 0
}

func identify(t *corev1.Taint) taintOn {
	id := taintOn{key: t.Key + "=" + t.Value}
	if t.TimeAdded != nil {
		id.added = t.TimeAdded.Unix()
	}
	return id
}

func (e *eviction) isTainted(node string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tainted[node] != nil
}

func (e *eviction) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	node, ok := store.Get[corev1.Node](e.c.reader, "", k.Name)
	if !ok || !e.note(node, false) {
		return 0, nil
	}
	var next time.Duration
	for _, pod := range store.ListBy[corev1.Pod](e.c.reader, "node", node.Name) {
		left, evict := e.left(node, pod)
		switch {
		case !evict || pod.DeletionTimestamp != nil:
		case left > 0:
			if next == 0 || left < next {
				next = left
			}
		default:
			if err := e.evict(ctx, pod); err != nil {
				return 0, err
			}
		}
	}
	return next, nil
}

// left is how long a pod may stay on a tainted node, if it may not stay for good.
func (e *eviction) left(node *corev1.Node, pod *corev1.Pod) (left time.Duration, evict bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		health := t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
		if t.Effect != corev1.TaintEffectNoExecute || health && nodeCondition(node, corev1.NodeReady) == corev1.ConditionTrue {
			continue // a node that is back loses these taints in a moment
		}
		at, there := e.tainted[node.Name][identify(t)]
		if !there {
			continue // it has gone since the node was read; whoever took it away has the node looked at again if there is another
		}
		end, forGood := tolerated(pod, t, at.counts)
		if health && !forGood {
			end, forGood = disconnected(pod, t, end, at)
			// The node may have come back while there was no leader: it has the grace to tell this one.
			if earliest := e.start.Add(e.c.cfg.NodeGrace); end.Before(earliest) {
				end = earliest
			}
		}
		if forGood {
			continue
		}
		if remaining := end.Sub(now); !evict || remaining < left {
			left, evict = remaining, true
		}
	}
	return left, evict
}

// tolerated is until when a pod tolerates a taint, or that it does for good.
func tolerated(pod *corev1.Pod, taint *corev1.Taint, since time.Time) (end time.Time, forGood bool) {
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if !t.ToleratesTaint(klog.Logger{}, taint, true) {
			continue
		}
		if t.TolerationSeconds == nil {
			return time.Time{}, true
		}
		return since.Add(time.Duration(max(0, *t.TolerationSeconds)) * time.Second), false
	}
	return since, false
}

// disconnected is until when a pod stays on a node that is silent or not well, if it says so itself by its annotation (see
// fleetv1.Disconnect), or else end.
func disconnected(pod *corev1.Pod, taint *corev1.Taint, end time.Time, at since) (until time.Time, forGood bool) {
	policy, err := fleetv1.ReadDisconnect(pod.Annotations)
	switch unreachable := taint.Key == corev1.TaintNodeUnreachable; {
	case err != nil, policy.Keep:
		return end, true // what cannot be read may have meant that it is never replaced
	case policy.StopAfter > 0 && !unreachable:
		return end, true // its device can be heard, so it goes on with the pod
	case policy.StopAfter > 0:
		// The device counts from before this process can have heard of it for the last time. No wall clock has a part in it.
		grace := time.Duration(ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)) * time.Second
		return at.seen.Add(policy.ReplaceAfter(grace)), false
	case policy.Replace && unreachable:
		return at.counts, false
	}
	return end, false
}

func (e *eviction) evict(ctx context.Context, pod *corev1.Pod) error {
	opts := metav1.NewPreconditionDeleteOptions(string(pod.UID))
	_, err := e.c.client.Delete(ctx, key(pods, pod.Namespace, pod.Name), opts)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	e.c.logger.Info("a pod is evicted", "pod", pod.Namespace+"/"+pod.Name, "node", pod.Spec.NodeName)
	e.c.recorder.eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Evicted from node %s because of its taints", pod.Spec.NodeName)
	return nil
}
