package pod

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// AnnotationSource is where a pod comes from: "file" for a static pod, "api" or nothing for the others.
const AnnotationSource = "kubernetes.io/config.source"

// systemCritical is the least priority of pods that the cluster needs to work.
const systemCritical = 2_000_000_000

// Load is how much a pod uses of what the device is short of, beside what it asked for.
type Load struct {
	Pod            *corev1.Pod
	Uses, Requests int64
}

// Static reports whether a pod comes from a folder on the device.
func Static(p *corev1.Pod) bool { return p.Annotations[AnnotationSource] == "file" }

// Critical reports whether a pod must stay whatever the device is short of.
func Critical(p *corev1.Pod) bool { return Static(p) || Priority(p) >= systemCritical }

// Priority of a pod; 0 if it has none.
func Priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// Rank orders pods as they are to be evicted, as kubelet does: those first that use more than they asked for, then those of lower
// priority, then those that use most beyond what they asked for. Critical pods and pods that are over are left out.
func Rank(loads []Load) []Load {
	ranked := slices.DeleteFunc(slices.Clone(loads), func(l Load) bool { return Critical(l.Pod) })
	slices.SortStableFunc(ranked, func(a, b Load) int {
		return cmp.Or(
			-compare(a.Uses > a.Requests, b.Uses > b.Requests),
			cmp.Compare(Priority(a.Pod), Priority(b.Pod)),
			-cmp.Compare(a.Uses-a.Requests, b.Uses-b.Requests),
			cmp.Compare(a.Pod.UID, b.Pod.UID),
		)
	})
	return ranked
}

func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Requested is the sum of what a pod's containers ask for of a resource: those that run together, or the init container that asks
// for more, and the overhead of the pod itself.
func Requested(p *corev1.Pod, name corev1.ResourceName) int64 { return total(p, name, requests) }

// Limited is the sum of the limits of a pod's containers, and whether all of them have one.
func Limited(p *corev1.Pod, name corev1.ResourceName) (int64, bool) {
	all := true
	Containers(p, func(c *corev1.Container, _ bool) {
		if _, ok := c.Resources.Limits[name]; !ok {
			all = false
		}
	})
	return total(p, name, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Limits }), all
}

func requests(c *corev1.Container) corev1.ResourceList {
	if c.Resources.Requests == nil {
		return c.Resources.Limits
	}
	return c.Resources.Requests
}

// total is in milli-units for CPU, else in units.
func total(p *corev1.Pod, name corev1.ResourceName, of func(*corev1.Container) corev1.ResourceList) int64 {
	amount := func(list corev1.ResourceList) int64 {
		q := list[name]
		if name == corev1.ResourceCPU {
			return q.MilliValue()
		}
		return q.Value()
	}
	var together, sidecars, most int64
	for i := range p.Spec.Containers {
		together += amount(of(&p.Spec.Containers[i]))
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if Sidecar(c) {
			sidecars += amount(of(c))
			most = max(most, sidecars)
		} else {
			most = max(most, sidecars+amount(of(c)))
		}
	}
	return max(together+sidecars, most) + amount(p.Spec.Overhead)
}
