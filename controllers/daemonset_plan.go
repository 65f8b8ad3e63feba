package controllers

import (
	"cmp"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	schedulinghelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// daemonPlan is what a daemon set wants to be done, from what there is. It is a function of its input.
type daemonPlan struct {
	ds     *appsv1.DaemonSet
	hash   string
	now    time.Time
	places []*daemonPlace // sorted by name

	// hold bounds how many nodes have the newest template, while a rollout in waves says so. Nil: all may.
	hold   *fleetv1.Hold
	make   []string // the nodes that get a pod
	remove []*corev1.Pod
	wakeUp
}

// daemonPlace is a node, or the name of one that there is no more, and the daemon set's pods there.
type daemonPlace struct {
	node string
	// wanted: there should be a pod; kept: one that is there stays.
	wanted, kept bool
	// away: the device cannot be reached. What it runs it will be told of when it comes back.
	away       bool
	leaving    []*corev1.Pod // are being deleted
	ended      []*corev1.Pod
	old, newer []*corev1.Pod // the oldest first
}

func newDaemonPlan(ds *appsv1.DaemonSet, hash string, nodes []*corev1.Node, owned []*corev1.Pod, now time.Time) *daemonPlan {
	p := &daemonPlan{ds: ds, hash: hash, now: now}
	hold, err := fleetv1.ReadHold(ds.Annotations)
	if p.hold = hold; err != nil {
		p.hold = &fleetv1.Hold{} // somebody has meddled with it: nothing goes further than it is
	}
	model := &corev1.Pod{Spec: *ds.Spec.Template.Spec.DeepCopy()}
	model.Spec.Tolerations = append(model.Spec.Tolerations, daemonTolerations(&model.Spec)...)
	by := map[string]*daemonPlace{}
	for _, node := range nodes {
		at := &daemonPlace{node: node.Name, away: beyondReach(node)}
		at.wanted, at.kept = belongs(model, node)
		by[node.Name] = at
	}
	owned = slices.Clone(owned)
	slices.SortStableFunc(owned, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, pod := range owned {
		name := pinnedTo(pod)
		at := by[name]
		if at == nil {
			at = &daemonPlace{node: name}
			by[name] = at
		}
		switch {
		case pod.DeletionTimestamp != nil:
			at.leaving = append(at.leaving, pod)
		case ended(pod):
			at.ended = append(at.ended, pod)
		case isOf(pod, hash):
			at.newer = append(at.newer, pod)
		default:
			at.old = append(at.old, pod)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		p.places = append(p.places, by[name])
	}
	return p
}

// belongs reports whether a pod like the model should run on a node, and whether one that runs there may stay.
func belongs(model *corev1.Pod, node *corev1.Node) (wanted, kept bool) {
	if named := model.Spec.NodeName; named != "" && named != node.Name {
		return false, false
	}
	if fits, err := nodeaffinity.GetRequiredNodeAffinity(model).Match(node); err != nil || !fits {
		return false, false
	}
	taint := func(effects ...corev1.TaintEffect) bool {
		_, found := schedulinghelpers.FindMatchingUntoleratedTaint(klog.Logger{}, node.Spec.Taints, model.Spec.Tolerations,
			func(t *corev1.Taint) bool { return slices.Contains(effects, t.Effect) }, true)
		return found
	}
	if taint(corev1.TaintEffectNoExecute) {
		return false, false
	}
	return !taint(corev1.TaintEffectNoSchedule), true
}

func beyondReach(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeUnreachable })
}

// wanted is how many nodes should have a pod.
func (p *daemonPlan) wanted() int {
	n := 0
	for _, at := range p.places {
		if at.wanted {
			n++
		}
	}
	return n
}

// reachable are the nodes that should have a pod and can be told so.
func (p *daemonPlan) reachable() []*daemonPlace {
	return slices.DeleteFunc(slices.Clone(p.places), func(at *daemonPlace) bool { return !at.wanted || at.away })
}

// bounds are how many nodes may have no pod that is available because of an update, and how many may have two.
func (p *daemonPlan) bounds() (unavailable, surge int) {
	u := p.ds.Spec.UpdateStrategy.RollingUpdate
	if p.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || u == nil {
		return 0, 0
	}
	scaled := func(v *intstr.IntOrString) int {
		n, err := intstr.GetScaledValueFromIntOrPercent(v, p.wanted(), true)
		if v == nil || err != nil {
			return 0
		}
		return n
	}
	unavailable, surge = scaled(u.MaxUnavailable), scaled(u.MaxSurge)
	if unavailable == 0 && surge == 0 {
		unavailable = 1 // percentages of nothing would stop it for ever
	}
	return unavailable, surge
}

// decide says which pods are to be made and to go.
func (p *daemonPlan) decide() {
	for _, at := range p.places {
		p.settle(at)
	}
	if p.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		p.update()
	}
}

// settle sees to it that a place has the pods that it should, whatever they are made of.
func (p *daemonPlan) settle(at *daemonPlace) {
	if !at.kept {
		p.remove = append(p.remove, slices.Concat(at.old, at.newer, at.ended)...)
		at.old, at.newer = nil, nil
		return
	}
	for _, pod := range at.ended {
		if p.mayGo(pod, p.now) {
			p.remove = append(p.remove, pod)
		}
	}
	_, surge := p.bounds()
	extra := func(of []*corev1.Pod) []*corev1.Pod { // all but the oldest
		if len(of) > 1 {
			p.remove = append(p.remove, of[1:]...)
			return of[:1]
		}
		return of
	}
	at.old, at.newer = extra(at.old), extra(at.newer)
	if surge == 0 && len(at.old) > 0 && len(at.newer) > 0 {
		p.remove = append(p.remove, at.old...)
		at.old = nil
	}
	if at.wanted && len(at.old)+len(at.newer)+len(at.ended)+len(at.leaving) == 0 {
		p.make = append(p.make, at.node)
	}
}

// more is how many further nodes may have the newest template. Those that have no pod at the moment may be about to get one.
func (p *daemonPlan) more() int {
	if p.hold == nil {
		return len(p.places)
	}
	more := int(p.hold.Pods)
	for _, at := range p.places {
		if at.wanted && len(at.old) == 0 && !at.away {
			more--
		}
	}
	return max(0, more)
}

// former reports how many of the pods that are to be made have to have the former template.
func (p *daemonPlan) former() int {
	if p.hold == nil {
		return 0
	}
	newer := 0
	for _, at := range p.places {
		if len(at.newer) > 0 {
			newer++
		}
	}
	return max(0, len(p.make)-max(0, int(p.hold.Pods)-newer))
}

// update replaces old pods, no more at a time than the bounds allow. A device that cannot be reached holds nobody up: its pod is to go, which it will
// hear when it comes back.
func (p *daemonPlan) update() {
	unavailable, surge := p.bounds()
	more := p.more()
	var ready []*daemonPlace // have an old pod that works
	for _, at := range p.places {
		if !at.wanted {
			continue
		}
		works := len(at.newer) > 0 && p.available(at.newer[0])
		switch {
		case len(at.old) > 0 && works:
			p.remove = append(p.remove, at.old[0])
		case len(at.old) > 0 && p.hold != nil && at.away:
			// no part of a wave
		case len(at.old) > 0 && (at.away || !p.available(at.old[0])):
			if more--; more < 0 {
				continue
			}
			if !at.away {
				unavailable-- // it is missed already, whatever becomes of it
			}
			p.remove = append(p.remove, at.old[0])
		case len(at.old) > 0 && len(at.newer) > 0:
			surge--
		case len(at.old) > 0:
			ready = append(ready, at)
		case !works && !at.away:
			unavailable--
		}
	}
	for _, at := range ready[:max(0, min(len(ready), more))] {
		switch {
		case surge > 0:
			surge--
			p.surge(at)
		case unavailable > 0:
			unavailable--
			p.remove = append(p.remove, at.old[0])
		}
	}
}

// surge makes a new pod beside an old one.
func (p *daemonPlan) surge(at *daemonPlace) {
	if at.wanted && len(at.newer)+len(at.ended)+len(at.leaving) == 0 {
		p.make = append(p.make, at.node)
	}
}

func (p *daemonPlan) available(pod *corev1.Pod) bool {
	return p.wakeUp.available(pod, p.ds.Spec.MinReadySeconds, p.now)
}

// status counts nodes. Of several pods on one, the oldest counts, and for an update the new one.
func (p *daemonPlan) status() appsv1.DaemonSetStatus {
	s := appsv1.DaemonSetStatus{ObservedGeneration: p.ds.Generation, CollisionCount: p.ds.Status.CollisionCount, Conditions: p.ds.Status.Conditions}
	for _, at := range p.places {
		live := slices.Concat(at.newer, at.old)
		has := len(live)+len(at.leaving)+len(at.ended) > 0
		if !at.wanted {
			if has {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if has {
			s.CurrentNumberScheduled++
		}
		if len(at.newer) > 0 {
			s.UpdatedNumberScheduled++
		}
		if slices.ContainsFunc(live, func(pod *corev1.Pod) bool { _, ready := readySince(pod); return ready }) {
			s.NumberReady++
		}
		if slices.ContainsFunc(live, p.available) {
			s.NumberAvailable++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	return s
}
