package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/store"
)

// daemonSetLoop keeps one pod of each daemon set on every device that it is meant for. The pods come with the affinity to their device, so that
// the scheduler, which knows what is free there, places them.
type daemonSetLoop struct {
	c      *Controllers
	strays strays
	nodes  map[string]nodeTraits // by the feed only
}

// nodeTraits are what decides about a node whether a daemon set's pod belongs there.
type nodeTraits struct {
	labels        map[string]string
	taints        []corev1.Taint
	unschedulable bool
}

func (c *Controllers) addDaemonSets() {
	d := &daemonSetLoop{c: c, nodes: map[string]nodeTraits{}}
	l := c.newLoop("daemonset", 4, d.reconcile)
	c.follow(daemonSets, "", keys(l))
	c.followPods(l, &d.strays, "DaemonSet", daemonSets)
	c.follow(nodes, "", each(func(n *corev1.Node, deleted bool) {
		if d.note(n, deleted) {
			c.addAll(l, daemonSets)
		}
	}))
}

// note reports whether a node has changed in a way that matters here.
func (d *daemonSetLoop) note(n *corev1.Node, deleted bool) bool {
	known, ok := d.nodes[n.Name]
	if deleted {
		delete(d.nodes, n.Name)
		return ok
	}
	is := nodeTraits{n.Labels, n.Spec.Taints, n.Spec.Unschedulable}
	d.nodes[n.Name] = is
	return !ok || !maps.Equal(known.labels, is.labels) || known.unschedulable != is.unschedulable ||
		!apiequality.Semantic.DeepEqual(known.taints, is.taints)
}

func (d *daemonSetLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	ds, ok := store.Get[appsv1.DaemonSet](d.c.reader, k.Namespace, k.Name)
	if !ok {
		return 0, nil // its pods are the garbage collector's
	}
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		return 0, fmt.Errorf("selector: %w", err)
	}
	if selector.Empty() {
		return 0, nil // it would take all pods
	}
	owned, err := claim[corev1.Pod](ctx, d.c, &d.strays, ds, selector)
	if err != nil || ds.DeletionTimestamp != nil {
		return 0, err
	}
	revision, err := d.c.revise(ctx, &history{
		owner: ds, template: &ds.Spec.Template, limit: ds.Spec.RevisionHistoryLimit, collisions: ds.Status.CollisionCount,
		count: func(o api.Object) { oneMore(&o.(*appsv1.DaemonSet).Status.CollisionCount) },
		used:  func(r *appsv1.ControllerRevision) bool { return anyOf(owned, hashOf(r)) },
	})
	if err != nil {
		return 0, err
	}
	all := store.List[corev1.Node](d.c.reader, "")
	plan := newDaemonPlan(ds, hashOf(revision), all, owned, d.c.now())
	plan.decide()
	failure := d.carryOut(ctx, ds, plan)
	now := newDaemonPlan(ds, plan.hash, all, store.ListBy[corev1.Pod](d.c.reader, store.OwnerIndex, string(ds.UID)), d.c.now())
	if err := d.report(ctx, ds, now.status()); err != nil {
		return 0, err
	}
	plan.after(now.again)
	return plan.again, failure
}

// carryOut makes and deletes pods.
func (d *daemonSetLoop) carryOut(ctx context.Context, ds *appsv1.DaemonSet, plan *daemonPlan) error {
	err := d.c.deletePods(ctx, ds, plan.remove)
	newest, hash := &ds.Spec.Template, plan.hash
	former, formerHash := newest, hash
	older := plan.former()
	if older > 0 {
		former, formerHash = d.former(ds, plan.hold)
	}
	var group errgroup.Group
	group.SetLimit(podWritesAtOnce)
	for i, node := range plan.make[:min(len(plan.make), maxPodWrites)] {
		template := daemonTemplate(newest, hash, node)
		if i < older {
			template = daemonTemplate(former, formerHash, node)
		}
		group.Go(func() error {
			_, err := d.c.makePod(ctx, ds, template)
			if errors.Is(err, errKeep) {
				return nil
			}
			return err
		})
	}
	return errors.Join(err, group.Wait())
}

// former is the template that a rollout in waves holds on to, and its hash.
func (d *daemonSetLoop) former(ds *appsv1.DaemonSet, hold *fleetv1.Hold) (*corev1.PodTemplateSpec, string) {
	t := ds.Spec.Template.DeepCopy()
	waves.SetImages(&t.Spec, hold.Former)
	return t, hashOf(revisionOf(d.c.reader, ds, t))
}

// daemonTemplate is what a daemon set's pod on a node is made of.
func daemonTemplate(of *corev1.PodTemplateSpec, hash, node string) *corev1.PodTemplateSpec {
	t := of.DeepCopy()
	t.Labels = withLabel(t.Labels, appsv1.ControllerRevisionHashLabelKey, hash)
	t.Spec.Tolerations = append(t.Spec.Tolerations, daemonTolerations(&t.Spec)...)
	pinTo(&t.Spec, node)
	return t
}

// daemonTolerations are those that every pod of a daemon set has: whatever ails its device, it stays.
func daemonTolerations(s *corev1.PodSpec) []corev1.Toleration {
	always := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	all := []corev1.Toleration{
		always(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute), always(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute),
		always(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule), always(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule),
		always(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule), always(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule),
	}
	if s.HostNetwork {
		all = append(all, always(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule))
	}
	return slices.DeleteFunc(all, func(t corev1.Toleration) bool { return slices.Contains(s.Tolerations, t) })
}

// pinTo lets a pod run on one node only, in the place of any other node that it names.
func pinTo(s *corev1.PodSpec, node string) {
	s.NodeName = ""
	this := []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}
	if s.Affinity == nil {
		s.Affinity = &corev1.Affinity{}
	}
	if s.Affinity.NodeAffinity == nil {
		s.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: this}},
	}
}

// pinnedTo is the node that a pod is on, or is meant for.
func pinnedTo(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" || pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return pod.Spec.NodeName
	}
	required := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil {
		return ""
	}
	for _, term := range required.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

func (d *daemonSetLoop) report(ctx context.Context, ds *appsv1.DaemonSet, status appsv1.DaemonSetStatus) error {
	if apiequality.Semantic.DeepEqual(status, ds.Status) {
		return nil
	}
	return d.c.writeStatus(ctx, ds, func(object api.Object) {
		now := object.(*appsv1.DaemonSet)
		status.CollisionCount = now.Status.CollisionCount
		now.Status = status
	})
}
