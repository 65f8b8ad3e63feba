package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/api/devices"
)

// wish is what a pod wants of a kind of hardware beyond its count: an annotation devices.shoal.dev/<class>.
type wish struct {
	resource string
	match    devices.Match
	text     string // the match, in one form
	count    int64
	bad      string // why the annotation cannot be read
}

func wishes(p *corev1.Pod, request []amount) []wish {
	if len(p.Annotations) == 0 {
		return nil
	}
	var list []wish
	for _, a := range request {
		match, err := devices.Wanted(p.Annotations, string(a.name))
		switch {
		case err != nil:
			list = append(list, wish{resource: string(a.name), bad: err.Error()})
		case match != nil:
			list = append(list, wish{resource: string(a.name), match: match, text: match.String(), count: a.value})
		}
	}
	return list
}

// contested is why a pod may not have a node's hardware though it is free there: it leads to a machine that a pod on another node may
// drive; "" if it may. A pod counts until its node has said that it ended: one on a node that nobody hears of may well go on. Which
// of several machines a pod drives only its node knows, so it is reckoned to drive all that it may have got.
func (s *Snapshot) contested(p *newcomer, n *node) string {
	for _, a := range p.request {
		left := n.allocatable[a.name] - n.used[a.name] - a.value
		machine := ""
		for _, d := range n.hardware {
			if m := d.Attributes[devices.Machine]; m != "" && d.Resource == string(a.name) && s.driven(m, n) {
				machine, left = m, left-1
			}
		}
		if machine != "" && left < 0 {
			return "node(s) share machine " + machine + " with a node whose pod may drive it"
		}
	}
	return ""
}

// driven reports whether a pod on another node may drive a machine.
func (s *Snapshot) driven(machine string, besides *node) bool {
	for _, n := range s.order {
		if n == besides {
			continue
		}
		for _, d := range n.hardware {
			if d.Attributes[devices.Machine] != machine || n.used[corev1.ResourceName(d.Resource)] == 0 {
				continue
			}
			for _, p := range n.pods {
				if p.mayHave(d) {
					return true
				}
			}
		}
	}
	return false
}

func (p *pod) mayHave(d devices.Device) bool {
	if !slices.ContainsFunc(p.request, func(a amount) bool { return string(a.name) == d.Resource }) {
		return false
	}
	at := slices.IndexFunc(p.wishes, func(w wish) bool { return w.resource == d.Resource })
	return at < 0 || p.wishes[at].match.Matches(d)
}

// unfit is why a node's hardware does not suit; "" if it does. Pods with the same wish are counted off; which device a pod with
// another one got is its node's choice, so what seems to suit may be taken: the node then keeps the pod waiting.
func (n *node) unfit(wishes []wish) string {
	for _, w := range wishes {
		if w.bad != "" {
			return "node(s) could not read the pod's " + w.bad
		}
		left := -w.count
		for _, d := range n.hardware {
			if d.Resource == w.resource && w.match.Matches(d) {
				left++
			}
		}
		if left < 0 {
			return "node(s) had no " + w.resource + " with " + w.text
		}
		for _, p := range n.pods {
			if at := slices.IndexFunc(p.wishes, func(o wish) bool { return o.resource == w.resource && o.text == w.text }); at >= 0 {
				left -= p.wishes[at].count
			}
		}
		if left < 0 {
			return "node(s) had no free " + w.resource + " with " + w.text
		}
	}
	return ""
}
