// Package scheduler owns placement: given the nodes and the pods on them, it says on which node a pod should run, or why on
// none. It is pure: it reads no clock, no store and no network, and the same input gives the same answer.
//
// A Snapshot is kept up to date change by change by its one owner, so that placing a pod decodes nothing.
package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/shoal-edge/shoal/api/devices"
)

// Snapshot is the cluster as placement sees it: of each node and pod only what a decision needs. It is not safe for
// concurrent use.
type Snapshot struct {
	nodes      map[string]*node
	order      []*node // nodes that exist, by name: the order in which ties are broken
	homes      map[types.UID]string
	averse     map[types.UID]*pod // pods with a required anti-affinity, which may refuse newcomers
	namespaces map[string]map[string]string
}

// node is one node and what is on it. object is nil while only pods that name the node are known.
type node struct {
	object      *corev1.Node
	hardware    []devices.Device
	allocatable map[corev1.ResourceName]int64
	used        map[corev1.ResourceName]int64
	weight      load // what scores count as used
	pods        map[types.UID]*pod
	owners      map[types.UID]int
}

// pod is one placed pod.
type pod struct {
	namespace   string
	labels      map[string]string
	node        string
	owner       types.UID
	request     []amount
	wishes      []wish
	weight      load
	ports       []port
	antiTerms   []term
	terminating bool
}

// NewSnapshot returns an empty snapshot.
func NewSnapshot() *Snapshot {
	return &Snapshot{
		nodes:      map[string]*node{},
		homes:      map[types.UID]string{},
		averse:     map[types.UID]*pod{},
		namespaces: map[string]map[string]string{},
	}
}

// SetNode adds or replaces a node. It reports whether anything changed that can matter to a placement.
func (s *Snapshot) SetNode(object *corev1.Node) bool {
	n := s.node(object.Name)
	trimmed, allocatable := trimNode(object), amounts(object.Status.Allocatable)
	if n.object != nil && sameNode(n.object, trimmed) && maps.Equal(n.allocatable, allocatable) {
		return false
	}
	fresh := n.object == nil
	if fresh || n.object.Annotations[devices.Annotation] != trimmed.Annotations[devices.Annotation] {
		n.hardware = devices.Decode(trimmed.Annotations[devices.Annotation])
	}
	n.object, n.allocatable = trimmed, allocatable
	if fresh {
		at, _ := slices.BinarySearchFunc(s.order, object.Name, byName)
		s.order = slices.Insert(s.order, at, n)
	}
	return true
}

// RemoveNode forgets a node; the pods that name it stay known.
func (s *Snapshot) RemoveNode(name string) {
	n, ok := s.nodes[name]
	if !ok || n.object == nil {
		return
	}
	if at, found := slices.BinarySearchFunc(s.order, name, byName); found {
		s.order = slices.Delete(s.order, at, at+1)
	}
	n.object, n.allocatable, n.hardware = nil, nil, nil
	s.forgetIfEmpty(name, n)
}

// RetainNodes forgets the nodes that keep refuses.
func (s *Snapshot) RetainNodes(keep func(name string) bool) {
	for _, n := range slices.Clone(s.order) {
		if !keep(n.object.Name) {
			s.RemoveNode(n.object.Name)
		}
	}
}

// SetPod adds or replaces a pod, and reports whether it was not there before. A pod that is not bound, or has finished,
// takes no room.
func (s *Snapshot) SetPod(object *corev1.Pod) bool {
	known := s.RemovePod(object.UID)
	if object.Spec.NodeName == "" || Finished(object) {
		return false
	}
	p, n := trimPod(object), s.node(object.Spec.NodeName)
	n.pods[object.UID] = p
	n.charge(p, 1)
	s.homes[object.UID] = p.node
	if len(p.antiTerms) > 0 {
		s.averse[object.UID] = p
	}
	return !known
}

// RemovePod forgets a pod. It reports whether the pod had taken room.
func (s *Snapshot) RemovePod(uid types.UID) bool {
	home, ok := s.homes[uid]
	if !ok {
		return false
	}
	n := s.nodes[home]
	n.charge(n.pods[uid], -1)
	delete(n.pods, uid)
	delete(s.homes, uid)
	delete(s.averse, uid)
	s.forgetIfEmpty(home, n)
	return true
}

// RetainPods forgets the pods that keep refuses.
func (s *Snapshot) RetainPods(keep func(uid types.UID) bool) {
	for uid := range maps.Clone(s.homes) {
		if !keep(uid) {
			s.RemovePod(uid)
		}
	}
}

// SetNamespace tells a namespace's labels, which affinity terms can select.
func (s *Snapshot) SetNamespace(name string, labels map[string]string) { s.namespaces[name] = labels }

// RemoveNamespace forgets a namespace.
func (s *Snapshot) RemoveNamespace(name string) { delete(s.namespaces, name) }

// Nodes is the number of nodes.
func (s *Snapshot) Nodes() int { return len(s.order) }

// Finished reports whether a pod has ended for good and takes no room any more.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func (s *Snapshot) node(name string) *node {
	n, ok := s.nodes[name]
	if !ok {
		n = &node{pods: map[types.UID]*pod{}, owners: map[types.UID]int{}, used: map[corev1.ResourceName]int64{}}
		s.nodes[name] = n
	}
	return n
}

func (s *Snapshot) forgetIfEmpty(name string, n *node) {
	if n.object == nil && len(n.pods) == 0 {
		delete(s.nodes, name)
	}
}

// charge adds (sign 1) or takes back (sign -1) what a pod uses.
func (n *node) charge(p *pod, sign int64) {
	for _, a := range p.request {
		n.used[a.name] += sign * a.value
	}
	n.weight.cpu += sign * p.weight.cpu
	n.weight.memory += sign * p.weight.memory
	if p.owner == "" || p.terminating {
		return
	}
	n.owners[p.owner] += int(sign)
	if n.owners[p.owner] == 0 {
		delete(n.owners, p.owner)
	}
}

func byName(n *node, name string) int {
	switch {
	case n.object.Name < name:
		return -1
	case n.object.Name > name:
		return 1
	}
	return 0
}

// trimNode keeps what filters and scores read, with the taints that the Ready condition stands for: a node that nobody has
// tainted yet takes no pods before it is ready.
func trimNode(object *corev1.Node) *corev1.Node {
	taints := slices.Clone(object.Spec.Taints)
	if key, bad := readyTaint(object); bad && !slices.ContainsFunc(taints, func(t corev1.Taint) bool { return t.Key == key }) {
		taints = append(taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
	for i := range taints {
		taints[i].TimeAdded = nil
	}
	trimmed := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: object.Name, Labels: object.Labels},
		Spec:       corev1.NodeSpec{Unschedulable: object.Spec.Unschedulable, Taints: taints},
	}
	if list, ok := object.Annotations[devices.Annotation]; ok {
		trimmed.Annotations = map[string]string{devices.Annotation: list}
	}
	return trimmed
}

func readyTaint(object *corev1.Node) (key string, bad bool) {
	for _, c := range object.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		switch c.Status {
		case corev1.ConditionTrue:
			return "", false
		case corev1.ConditionUnknown:
			return corev1.TaintNodeUnreachable, true
		}
	}
	return corev1.TaintNodeNotReady, true
}

func sameNode(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable &&
		maps.Equal(a.Labels, b.Labels) &&
		maps.Equal(a.Annotations, b.Annotations) &&
		slices.EqualFunc(a.Spec.Taints, b.Spec.Taints, func(x, y corev1.Taint) bool {
			return x.Key == y.Key && x.Value == y.Value && x.Effect == y.Effect
		})
}

func trimPod(object *corev1.Pod) *pod {
	request := podRequest(object)
	return &pod{
		namespace:   object.Namespace,
		labels:      object.Labels,
		node:        object.Spec.NodeName,
		owner:       controllerUID(object),
		request:     request,
		wishes:      wishes(object, request),
		weight:      weigh(request),
		ports:       hostPorts(object),
		antiTerms:   requiredAntiTerms(object),
		terminating: object.DeletionTimestamp != nil,
	}
}

func controllerUID(object *corev1.Pod) types.UID {
	if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
		return ref.UID
	}
	return ""
}

// topologyValues collects the values of a node label over the nodes that hold a pod which match accepts.
func (s *Snapshot) topologyValues(key string, match func(*pod) bool) sets.Set[string] {
	values := sets.New[string]()
	for _, n := range s.order {
		value, ok := n.object.Labels[key]
		if !ok || values.Has(value) {
			continue
		}
		for _, p := range n.pods {
			if match(p) {
				values.Insert(value)
				break
			}
		}
	}
	return values
}
