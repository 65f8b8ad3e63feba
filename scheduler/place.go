package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulinghelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Decision is where a pod should go, or why it can go nowhere.
type Decision struct {
	Node    string         // empty: no node can take the pod
	Total   int            // nodes looked at
	Reasons map[string]int // for each reason, the nodes that it excludes
}

// Explain says why no node can take the pod, in the words that Kubernetes users know.
func (d Decision) Explain() string {
	if d.Total == 0 {
		return "no nodes available to schedule pods"
	}
	reasons := make([]string, 0, len(d.Reasons))
	for reason, count := range d.Reasons {
		reasons = append(reasons, fmt.Sprintf("%d %s", count, reason))
	}
	slices.Sort(reasons)
	return fmt.Sprintf("0/%d nodes are available: %s.", d.Total, strings.Join(reasons, ", "))
}

// newcomer is a pod to place, with what is worked out once for all nodes.
type newcomer struct {
	object      *corev1.Pod
	request     []amount
	wishes      []wish
	weight      load
	ports       []port
	affinity    nodeaffinity.RequiredNodeAffinity
	nearness    nearness
	constraints []constraint
}

// Place picks the node for a pod. It changes nothing: the caller tells the snapshot of the binding with SetPod.
func (s *Snapshot) Place(object *corev1.Pod) Decision {
	p := s.newcomer(object)
	d := Decision{Total: len(s.order)}
	feasible := make([]*node, 0, len(s.order))
	for _, n := range s.order {
		reasons := p.objections(n)
		if len(reasons) == 0 {
			if reason := s.contested(p, n); reason != "" {
				reasons = []string{reason}
			}
		}
		if len(reasons) == 0 {
			feasible = append(feasible, n)
			continue
		}
		if d.Reasons == nil {
			d.Reasons = map[string]int{}
		}
		for _, reason := range reasons {
			d.Reasons[reason]++
		}
	}
	if best := s.best(p, feasible); best != nil {
		d.Node = best.object.Name
	}
	return d
}

func (s *Snapshot) newcomer(object *corev1.Pod) *newcomer {
	p := &newcomer{
		object:   object,
		request:  podRequest(object),
		ports:    hostPorts(object),
		affinity: nodeaffinity.GetRequiredNodeAffinity(object),
		nearness: s.nearness(object),
	}
	p.weight, p.wishes = weigh(p.request), wishes(object, p.request)
	p.constraints = s.constraints(object, p.affinity)
	return p
}

// objections are the reasons for which a node cannot take the pod: those of the first filter that refuses.
func (p *newcomer) objections(n *node) []string {
	if n.object.Spec.Unschedulable && !tolerates(p.object.Spec.Tolerations, &unschedulableTaint) {
		return []string{"node(s) were unschedulable"}
	}
	if n.untolerated(p.object.Spec.Tolerations) {
		return []string{"node(s) had untolerated taint(s)"}
	}
	if ok, _ := p.affinity.Match(n.object); !ok {
		return []string{"node(s) didn't match Pod's node affinity/selector"}
	}
	if !n.portsFree(p.ports) {
		return []string{"node(s) didn't have free ports for the requested pod ports"}
	}
	if lacking := n.lacking(p.request); len(lacking) > 0 {
		return lacking
	}
	if reason := n.unfit(p.wishes); reason != "" {
		return []string{reason}
	}
	if reason := uneven(p.constraints, n); reason != "" {
		return []string{reason}
	}
	if reason := p.nearness.objection(n); reason != "" {
		return []string{reason}
	}
	return nil
}

var unschedulableTaint = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}

// untolerated reports whether a taint keeps new pods with these tolerations away. The taint of an unschedulable node has a
// filter, and a reason, of its own.
func (n *node) untolerated(tolerations []corev1.Toleration) bool {
	for i := range n.object.Spec.Taints {
		taint := &n.object.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule || taint.Key == corev1.TaintNodeUnschedulable && n.object.Spec.Unschedulable {
			continue
		}
		if !tolerates(tolerations, taint) {
			return true
		}
	}
	return false
}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	return schedulinghelpers.TolerationsTolerateTaint(klog.Logger{}, tolerations, taint, true)
}
