package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// secondLook is how long a silent node is given once more before it is judged: when this process itself was held up, its
// devices' heartbeats are still waiting to be read.
const secondLook = time.Second

// When more nodes than this are not ready at once, the fault is likelier in what they share than in each of them: then
// nothing is evicted.
const (
	disruptedNodes   = 2
	disruptedPercent = 55
)

// nodeHealth tells which nodes are alive. A device's heartbeats are Leases in the volatile store. What counts is when this
// process saw them change, by its monotonic clock: no step of any clock can make a node look dead. A new leader has seen
// nothing yet and gives every node the whole grace.
type nodeHealth struct {
	c    *Controllers
	loop *loop

	mu        sync.Mutex
	heard     map[string]time.Time // when a sign of life was last seen
	doubted   map[string]time.Time // since when a node is looked at a second time
	ready     map[string]bool      // what the nodes' conditions say
	disrupted bool
}

func (c *Controllers) addNodeHealth() {
	h := &nodeHealth{c: c, heard: map[string]time.Time{}, doubted: map[string]time.Time{}, ready: map[string]bool{}}
	h.loop = c.newLoop("nodehealth", 2, h.reconcile)
	nodeReader := each(h.note)
	nodeReader.relist = h.forgetConditions
	c.follow(nodes, "", nodeReader)
	listing := false
	c.follow(leases, corev1.NamespaceNodeLease, reader{
		// A lease in a list may be old: only a change is a sign of life.
		relist: func() { listing = true },
		listed: func() { listing = false },
		changed: func(ch *change) {
			if !listing && !ch.deleted() {
				h.hear(ch.Item.Key.Name)
			}
		},
	})
}

func (h *nodeHealth) hear(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard[node] = time.Now()
	delete(h.doubted, node)
}

func (h *nodeHealth) forgetConditions() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.ready)
}

// note takes in what a node's conditions say. A node that becomes ready was heard: nobody but its device says so.
func (h *nodeHealth) note(node *corev1.Node, deleted bool) {
	h.mu.Lock()
	before, known := h.ready[node.Name]
	if deleted {
		delete(h.ready, node.Name)
	} else {
		h.ready[node.Name] = nodeCondition(node, corev1.NodeReady) == corev1.ConditionTrue
	}
	revived := known && !before && h.ready[node.Name]
	turned := h.judgeDisruption()
	h.mu.Unlock()
	if revived {
		h.hear(node.Name)
	}
	h.loop.add(key(nodes, "", node.Name))
	if turned {
		h.c.addAll(h.loop, nodes)
	}
}

// judgeDisruption reports whether the judgement changed.
func (h *nodeHealth) judgeDisruption() bool {
	down := 0
	for _, ready := range h.ready {
		if !ready {
			down++
		}
	}
	before := h.disrupted
	h.disrupted = down > disruptedNodes && down*100 > disruptedPercent*len(h.ready)
	return before != h.disrupted
}

// SilenceLabel is a label that a device gives its node when its link is quiet for longer than the grace: for how long the node may
// be silent, as a Go duration. It is stored, so that a new leader knows it too.
const (
	SilenceLabel = "shoal.dev/silence"
	maxSilence   = 24 * time.Hour
)

// grace is how long a node may be silent.
func (h *nodeHealth) grace(node *corev1.Node) time.Duration {
	silence, err := time.ParseDuration(node.Labels[SilenceLabel])
	if err != nil {
		return h.c.cfg.NodeGrace
	}
	return max(h.c.cfg.NodeGrace, min(silence, maxSilence))
}

// patience returns how much longer a node may be silent; at zero it is judged.
func (h *nodeHealth) patience(node string, grace time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if _, ok := h.heard[node]; !ok {
		h.heard[node] = now
	}
	if left := h.heard[node].Add(grace).Sub(now); left > 0 {
		return left
	}
	if _, ok := h.doubted[node]; !ok {
		h.doubted[node] = now
	}
	return max(0, h.doubted[node].Add(min(secondLook, grace/4)).Sub(now))
}

func (h *nodeHealth) forget(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.heard, node)
	delete(h.doubted, node)
}

func (h *nodeHealth) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	node, ok := store.Get[corev1.Node](h.c.reader, "", k.Name)
	if !ok {
		h.forget(k.Name)
		_, err := h.c.client.Delete(ctx, key(leases, corev1.NamespaceNodeLease, k.Name), nil)
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	}
	left := h.patience(k.Name, h.grace(node))
	if left == 0 && nodeCondition(node, corev1.NodeReady) != corev1.ConditionUnknown {
		var err error
		if node, err = h.lose(ctx, node); err != nil {
			return 0, err
		}
	}
	if nodeCondition(node, corev1.NodeReady) == corev1.ConditionUnknown {
		if err := h.doubtPods(ctx, k.Name); err != nil {
			return 0, err
		}
	}
	return left, h.taint(ctx, node)
}

// lose writes that nobody knows how a node is.
func (h *nodeHealth) lose(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	h.c.logger.Warn("a node is silent", "node", node.Name, "for", h.grace(node))
	now := metav1.NewTime(h.c.now())
	updated, err := h.c.client.Modify(ctx, key(nodes, "", node.Name), "status", func(object api.Object) error {
		current := object.(*corev1.Node)
		if nodeCondition(current, corev1.NodeReady) == "" {
			current.Status.Conditions = append(current.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady})
		}
		for i := range current.Status.Conditions {
			c := &current.Status.Conditions[i]
			switch c.Type {
			case corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure:
				c.Status, c.LastTransitionTime = corev1.ConditionUnknown, now
				c.Reason, c.Message = "NodeStatusUnknown", "The node's agent has stopped reporting."
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("mark the node unknown: %w", err)
	}
	h.c.recorder.eventf(node, corev1.EventTypeWarning, "NodeNotReady", "Node %s is silent: its status is unknown", node.Name)
	if h.c.cfg.Unreachable != nil {
		h.c.cfg.Unreachable(node.Name)
	}
	return updated.(*corev1.Node), nil
}

// doubtPods marks the pods of a node that nobody hears of as not ready, so that nobody sends them work. They are not
// stopped; their device says how they are as soon as it is back.
func (h *nodeHealth) doubtPods(ctx context.Context, node string) error {
	for _, pod := range store.ListBy[corev1.Pod](h.c.reader, "node", node) {
		if _, ready := readySince(pod); !ready {
			continue
		}
		_, err := h.c.client.Modify(ctx, key(pods, pod.Namespace, pod.Name), "status", func(object api.Object) error {
			current := object.(*corev1.Pod)
			if current.UID != pod.UID || current.Spec.NodeName != node {
				return errKeep
			}
			setPodCondition(&current.Status, corev1.PodCondition{
				Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(h.c.now()),
				Reason: "NodeNotReady", Message: "Nothing is heard of the pod's node.", ObservedGeneration: current.Generation,
			})
			return nil
		})
		if err != nil && !errors.Is(err, errKeep) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("mark pod %s/%s not ready: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

func nodeCondition(node *corev1.Node, t corev1.NodeConditionType) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return ""
}
