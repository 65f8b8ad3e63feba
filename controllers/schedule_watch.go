package controllers

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/scheduler"
)

// nodeReader keeps the snapshot's nodes up to date.
func (p *placement) nodeReader() reader {
	var seen map[string]bool // set while a list comes in
	r := each(func(node *corev1.Node, deleted bool) {
		if seen != nil {
			seen[node.Name] = true
		}
		p.nodeChanged(node, deleted)
	})
	r.relist = func() { seen = map[string]bool{} }
	r.listed = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.snapshot.RetainNodes(func(name string) bool { return seen[name] })
		seen = nil
	}
	return r
}

func (p *placement) nodeChanged(node *corev1.Node, deleted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if deleted {
		p.snapshot.RemoveNode(node.Name)
	} else if p.snapshot.SetNode(node) {
		p.queue.wake(false)
	}
}

// podReader keeps the snapshot's pods and the queue up to date.
func (p *placement) podReader() reader {
	var seen map[types.UID]bool
	r := each(func(pod *corev1.Pod, deleted bool) {
		if seen != nil {
			seen[pod.UID] = true
		}
		p.podChanged(pod, deleted)
	})
	r.relist = func() { seen = map[types.UID]bool{} }
	r.listed = func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.snapshot.RetainPods(func(uid types.UID) bool { return seen[uid] || p.binding[uid] })
		seen = nil
		p.queue.wake(false)
	}
	return r
}

func (p *placement) podChanged(pod *corev1.Pod, deleted bool) {
	k := key(pods, pod.Namespace, pod.Name)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case deleted || scheduler.Finished(pod):
		if p.snapshot.RemovePod(pod.UID) {
			p.queue.wake(false)
		}
		p.queue.remove(k)
	case pod.Spec.NodeName != "":
		if p.snapshot.SetPod(pod) {
			p.queue.wake(true)
		}
		p.queue.remove(k)
	case wantsNode(pod):
		if !p.binding[pod.UID] {
			p.queue.add(k, podPriority(pod), pod.Generation, wantsCompany(pod))
		}
	default:
		p.queue.remove(k)
	}
}

func (p *placement) namespaceChanged(namespace *corev1.Namespace, deleted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if deleted {
		p.snapshot.RemoveNamespace(namespace.Name)
	} else {
		p.snapshot.SetNamespace(namespace.Name, namespace.Labels)
	}
}

func podPriority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// wantsCompany reports whether the binding of another pod can make room for this one.
func wantsCompany(pod *corev1.Pod) bool {
	return len(pod.Spec.TopologySpreadConstraints) > 0 || pod.Spec.Affinity != nil && pod.Spec.Affinity.PodAffinity != nil
}
