package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// healthTaints are the keys of the taints that follow from a node's conditions; they are nobody else's to set.
var healthTaints = []string{
	corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure,
	corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable,
}

// taint makes a node's taints follow from its conditions.
func (h *nodeHealth) taint(ctx context.Context, node *corev1.Node) error {
	if _, changed := h.withTaints(node); !changed {
		return nil
	}
	_, err := h.c.client.Modify(ctx, key(nodes, "", node.Name), "", func(object api.Object) error {
		current := object.(*corev1.Node)
		taints, changed := h.withTaints(current)
		if !changed {
			return errKeep
		}
		current.Spec.Taints = taints
		return nil
	})
	if err != nil && !errors.Is(err, errKeep) {
		return fmt.Errorf("taint the node: %w", err)
	}
	return nil
}

// withTaints returns a node's taints as they should be: those that stay keep the time at which they were added.
func (h *nodeHealth) withTaints(node *corev1.Node) (taints []corev1.Taint, changed bool) {
	h.mu.Lock()
	wanted := wantedTaints(node, !h.disrupted)
	h.mu.Unlock()
	for _, t := range node.Spec.Taints {
		same := func(w corev1.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect }
		at := slices.IndexFunc(wanted, same)
		switch {
		case at >= 0:
			wanted = slices.Delete(wanted, at, at+1)
		case slices.Contains(healthTaints, t.Key):
			changed = true
			continue
		}
		taints = append(taints, t)
	}
	now := metav1.NewTime(h.c.now())
	for _, t := range wanted {
		t.TimeAdded = &now
		taints, changed = append(taints, t), true
	}
	return taints, changed
}

func wantedTaints(node *corev1.Node, evict bool) []corev1.Taint {
	var wanted []corev1.Taint
	add := func(key string, effect corev1.TaintEffect) {
		wanted = append(wanted, corev1.Taint{Key: key, Effect: effect})
	}
	lost := ""
	switch nodeCondition(node, corev1.NodeReady) {
	case corev1.ConditionTrue:
	case corev1.ConditionUnknown:
		lost = corev1.TaintNodeUnreachable
	case corev1.ConditionFalse:
		lost = corev1.TaintNodeNotReady
	}
	if lost != "" {
		add(lost, corev1.TaintEffectNoSchedule)
		if evict {
			add(lost, corev1.TaintEffectNoExecute)
		}
	}
	if node.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	for condition, key := range map[corev1.NodeConditionType]string{
		corev1.NodeMemoryPressure: corev1.TaintNodeMemoryPressure, corev1.NodeDiskPressure: corev1.TaintNodeDiskPressure,
		corev1.NodePIDPressure: corev1.TaintNodePIDPressure, corev1.NodeNetworkUnavailable: corev1.TaintNodeNetworkUnavailable,
	} {
		if nodeCondition(node, condition) == corev1.ConditionTrue {
			add(key, corev1.TaintEffectNoSchedule)
		}
	}
	return wanted
}
