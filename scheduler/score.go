package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// The weights of the scores, each of which runs from 0 to 100 over the nodes that can take the pod. What a user asks for
// comes first; then the replicas of one owner go to different devices, because a device is what fails; then load is even.
const (
	weightTaints   = 12
	weightAffinity = 10
	weightNear     = 10
	weightTopology = 10
	weightReplicas = 5
	weightRoom     = 1
	weightBalance  = 1
)

// best picks the node with the highest score, the first by name among equals.
func (s *Snapshot) best(p *newcomer, feasible []*node) *node {
	if len(feasible) == 0 {
		return nil
	}
	if len(feasible) == 1 {
		return feasible[0]
	}
	total := make([]float64, len(feasible))
	add := func(weight float64, score func(*node) float64) {
		addRelative(total, feasible, weight, score)
	}
	owner := controllerUID(p.object)
	if owner != "" {
		add(weightReplicas, func(n *node) float64 { return -float64(n.owners[owner]) })
	}
	add(weightTaints, func(n *node) float64 { return -n.avoided(p.object.Spec.Tolerations) })
	if score := preferredNodes(p.object); score != nil {
		add(weightAffinity, score)
	}
	if terms := preferredTerms(p.object); len(terms) > 0 {
		add(weightNear, s.preferredPods(terms))
	}
	if score := softSpread(p.constraints); score != nil {
		add(weightTopology, score)
	}
	best := 0
	for i, n := range feasible {
		total[i] += weightRoom*n.room(p.weight) + weightBalance*n.balance(p.weight)
		if total[i] > total[best] {
			best = i
		}
	}
	return feasible[best]
}

// addRelative stretches a score over 0 to 100 between the worst and the best node, and adds it.
func addRelative(total []float64, nodes []*node, weight float64, score func(*node) float64) {
	scores := make([]float64, len(nodes))
	low, high := math.Inf(1), math.Inf(-1)
	for i, n := range nodes {
		scores[i] = score(n)
		low, high = min(low, scores[i]), max(high, scores[i])
	}
	if high == low {
		return
	}
	for i := range nodes {
		total[i] += weight * 100 * (scores[i] - low) / (high - low)
	}
}

// avoided counts the taints that ask pods with these tolerations to stay away if they can.
func (n *node) avoided(tolerations []corev1.Toleration) float64 {
	count := 0
	for i := range n.object.Spec.Taints {
		taint := &n.object.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(tolerations, taint) {
			count++
		}
	}
	return float64(count)
}

func preferredNodes(p *corev1.Pod) func(*node) float64 {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
		return nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil || terms == nil {
		return nil
	}
	return func(n *node) float64 { return float64(terms.Score(n.object)) }
}

// preferredPods scores a node by the pods in its topology domains that the newcomer wants to be near to, or far from.
func (s *Snapshot) preferredPods(terms []term) func(*node) float64 {
	counts := make([]map[string]int64, len(terms))
	for i := range terms {
		t, match := &terms[i], s.matcher(&terms[i])
		counts[i] = map[string]int64{}
		for _, n := range s.order {
			value, ok := n.object.Labels[t.topologyKey]
			if !ok {
				continue
			}
			for _, other := range n.pods {
				if match(other) {
					counts[i][value] += t.weight
				}
			}
		}
	}
	return func(n *node) float64 {
		var sum int64
		for i := range terms {
			if value, ok := n.object.Labels[terms[i].topologyKey]; ok {
				sum += counts[i][value]
			}
		}
		return float64(sum)
	}
}

// softSpread scores a node by how few matching pods its domains hold, for constraints that do not forbid.
func softSpread(constraints []constraint) func(*node) float64 {
	soft := false
	for i := range constraints {
		soft = soft || !constraints[i].hard
	}
	if !soft {
		return nil
	}
	return func(n *node) float64 {
		sum := 0.0
		for i := range constraints {
			c := &constraints[i]
			if c.hard {
				continue
			}
			value, ok := n.object.Labels[c.key]
			if !ok {
				return -math.MaxInt32
			}
			sum += float64(c.counts[value]) / float64(c.maxSkew)
		}
		return -sum
	}
}

// room is the share of CPU and memory that would stay free, from 0 to 100.
func (n *node) room(w load) float64 {
	return 100 * (2 - n.fill(corev1.ResourceCPU, n.weight.cpu+w.cpu) - n.fill(corev1.ResourceMemory, n.weight.memory+w.memory)) / 2
}

// balance is how evenly CPU and memory would be used, from 0 to 100.
func (n *node) balance(w load) float64 {
	cpu, memory := n.fill(corev1.ResourceCPU, n.weight.cpu+w.cpu), n.fill(corev1.ResourceMemory, n.weight.memory+w.memory)
	return 100 * (1 - math.Abs(cpu-memory))
}

func (n *node) fill(name corev1.ResourceName, used int64) float64 {
	if n.allocatable[name] <= 0 {
		return 1
	}
	return min(1, float64(used)/float64(n.allocatable[name]))
}
