package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// constraint is one topology spread constraint, with the pods it counts in each domain.
type constraint struct {
	key      string
	maxSkew  int
	selfIn   int // 1 if the newcomer counts itself
	hard     bool
	counts   map[string]int
	smallest int
}

func (s *Snapshot) constraints(p *corev1.Pod, affinity nodeaffinity.RequiredNodeAffinity) []constraint {
	var made []constraint
	for i := range p.Spec.TopologySpreadConstraints {
		made = append(made, s.constraint(p, &p.Spec.TopologySpreadConstraints[i], affinity))
	}
	return made
}

func (s *Snapshot) constraint(p *corev1.Pod, t *corev1.TopologySpreadConstraint, affinity nodeaffinity.RequiredNodeAffinity) constraint {
	selector := withKeys(asSelector(t.LabelSelector), p.Labels, t.MatchLabelKeys, selection.In)
	c := constraint{
		key: t.TopologyKey, maxSkew: int(t.MaxSkew), counts: map[string]int{},
		hard: t.WhenUnsatisfiable == corev1.DoNotSchedule,
	}
	if selector.Matches(labels.Set(p.Labels)) {
		c.selfIn = 1
	}
	for _, n := range s.order {
		value, ok := n.object.Labels[t.TopologyKey]
		if !ok || !counted(p, t, n, affinity) {
			continue
		}
		c.counts[value] += n.countMatching(p.Namespace, selector)
	}
	c.smallest = smallestCount(c.counts, t.MinDomains)
	return c
}

// counted reports whether a node makes a domain for the constraint: by default those that the pod's node affinity allows.
func counted(p *corev1.Pod, t *corev1.TopologySpreadConstraint, n *node, affinity nodeaffinity.RequiredNodeAffinity) bool {
	if t.NodeAffinityPolicy == nil || *t.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, _ := affinity.Match(n.object); !ok {
			return false
		}
	}
	if t.NodeTaintsPolicy != nil && *t.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		return !n.untolerated(p.Spec.Tolerations)
	}
	return true
}

func (n *node) countMatching(namespace string, selector labels.Selector) int {
	count := 0
	for _, other := range n.pods {
		if other.namespace == namespace && !other.terminating && selector.Matches(labels.Set(other.labels)) {
			count++
		}
	}
	return count
}

func smallestCount(counts map[string]int, minDomains *int32) int {
	if minDomains != nil && len(counts) < int(*minDomains) || len(counts) == 0 {
		return 0
	}
	smallest := math.MaxInt
	for _, count := range counts {
		smallest = min(smallest, count)
	}
	return smallest
}

// uneven is the reason for which a node would break a hard constraint, or nothing.
func uneven(constraints []constraint, n *node) string {
	for i := range constraints {
		c := &constraints[i]
		if !c.hard {
			continue
		}
		value, ok := n.object.Labels[c.key]
		if !ok {
			return "node(s) didn't match pod topology spread constraints (missing required label)"
		}
		if c.counts[value]+c.selfIn-c.smallest > c.maxSkew {
			return "node(s) didn't match pod topology spread constraints"
		}
	}
	return ""
}
