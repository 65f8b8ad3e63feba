package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
)

// term is one (anti-)affinity term: pods near or far from which another pod wants to be, and what counts as near.
type term struct {
	topologyKey string
	namespaces  []string
	inNamespace labels.Selector // nil: only the listed namespaces
	selector    labels.Selector
	weight      int64 // of a preferred term; negative for anti-affinity
}

func newTerm(p *corev1.Pod, t *corev1.PodAffinityTerm, weight int32) term {
	made := term{topologyKey: t.TopologyKey, namespaces: t.Namespaces, selector: selectorWithKeys(p, t), weight: int64(weight)}
	if t.NamespaceSelector != nil {
		made.inNamespace = asSelector(t.NamespaceSelector)
	} else if len(t.Namespaces) == 0 {
		made.namespaces = []string{p.Namespace}
	}
	return made
}

// asSelector treats a selector that does not parse as one that selects nothing: validation has refused it before.
func asSelector(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

func selectorWithKeys(p *corev1.Pod, t *corev1.PodAffinityTerm) labels.Selector {
	selector := withKeys(asSelector(t.LabelSelector), p.Labels, t.MatchLabelKeys, selection.In)
	return withKeys(selector, p.Labels, t.MismatchLabelKeys, selection.NotIn)
}

// withKeys narrows a selector to the newcomer's own values of the given labels (or away from them).
func withKeys(selector labels.Selector, own map[string]string, keys []string, op selection.Operator) labels.Selector {
	for _, key := range keys {
		value, ok := own[key]
		if !ok {
			continue
		}
		if r, err := labels.NewRequirement(key, op, []string{value}); err == nil {
			selector = selector.Add(*r)
		}
	}
	return selector
}

func (t *term) matches(s *Snapshot, namespace string, podLabels map[string]string) bool {
	inside := slices.Contains(t.namespaces, namespace) ||
		t.inNamespace != nil && t.inNamespace.Matches(labels.Set(s.namespaces[namespace]))
	return inside && t.selector.Matches(labels.Set(podLabels))
}

func requiredTerms(p *corev1.Pod) []term {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAffinity == nil {
		return nil
	}
	return newTerms(p, p.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
}

func requiredAntiTerms(p *corev1.Pod) []term {
	if p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	return newTerms(p, p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
}

func newTerms(p *corev1.Pod, list []corev1.PodAffinityTerm) []term {
	var terms []term
	for i := range list {
		terms = append(terms, newTerm(p, &list[i], 0))
	}
	return terms
}

// preferredTerms are both kinds of preferred terms; those of anti-affinity weigh less than nothing.
func preferredTerms(p *corev1.Pod) []term {
	var terms []term
	if p.Spec.Affinity == nil {
		return nil
	}
	if a := p.Spec.Affinity.PodAffinity; a != nil {
		for _, w := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			terms = append(terms, newTerm(p, &w.PodAffinityTerm, w.Weight))
		}
	}
	if a := p.Spec.Affinity.PodAntiAffinity; a != nil {
		for _, w := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			terms = append(terms, newTerm(p, &w.PodAffinityTerm, -w.Weight))
		}
	}
	return terms
}

// nearness is what pods that are already placed say about where a newcomer may go.
type nearness struct {
	near    []zone // each one must hold the node
	away    []zone // none may hold the node
	refused []zone // places that pods already there keep the newcomer out of
}

// zone is a set of values of one node label.
type zone struct {
	key    string
	values sets.Set[string]
	any    bool // any node that has the label
}

func (z zone) holds(n *node) bool {
	value, ok := n.object.Labels[z.key]
	return ok && (z.any || z.values.Has(value))
}

func (s *Snapshot) nearness(p *corev1.Pod) nearness {
	var made nearness
	terms := requiredTerms(p)
	for i := range terms {
		t := &terms[i]
		made.near = append(made.near, zone{key: t.topologyKey, values: s.topologyValues(t.topologyKey, s.matcher(t))})
	}
	s.admitFirst(p, terms, made.near)
	anti := requiredAntiTerms(p)
	for i := range anti {
		t := &anti[i]
		made.away = append(made.away, zone{key: t.topologyKey, values: s.topologyValues(t.topologyKey, s.matcher(t))})
	}
	for _, other := range s.averse {
		made.refused = append(made.refused, s.refusals(other, p)...)
	}
	return made
}

func (s *Snapshot) matcher(t *term) func(*pod) bool {
	return func(other *pod) bool { return t.matches(s, other.namespace, other.labels) }
}

// admitFirst lets the first pod of a group that wants to be near itself go anywhere: nobody is there yet to be near.
func (s *Snapshot) admitFirst(p *corev1.Pod, terms []term, near []zone) {
	for i := range terms {
		if len(near[i].values) > 0 || !terms[i].matches(s, p.Namespace, p.Labels) {
			return
		}
	}
	for i := range near {
		near[i].any = true
	}
}

// refusals are the places that a placed pod's anti-affinity keeps the newcomer out of.
func (s *Snapshot) refusals(other *pod, p *corev1.Pod) []zone {
	home := s.nodes[other.node]
	if home.object == nil {
		return nil
	}
	var zones []zone
	for i := range other.antiTerms {
		t := &other.antiTerms[i]
		if value, ok := home.object.Labels[t.topologyKey]; ok && t.matches(s, p.Namespace, p.Labels) {
			zones = append(zones, zone{key: t.topologyKey, values: sets.New(value)})
		}
	}
	return zones
}

// objection is the reason for which a node is too near or too far, or nothing.
func (w *nearness) objection(n *node) string {
	for _, z := range w.near {
		if !z.holds(n) {
			return "node(s) didn't match pod affinity rules"
		}
	}
	for _, z := range w.away {
		if z.holds(n) {
			return "node(s) didn't match pod anti-affinity rules"
		}
	}
	for _, z := range w.refused {
		if z.holds(n) {
			return "node(s) didn't satisfy existing pods anti-affinity rules"
		}
	}
	return ""
}
