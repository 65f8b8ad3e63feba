package agent

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// evictOne ends the pod that is first in line for what the device is short of; nil: there is none.
func (a *Agent) evictOne(ctx context.Context, p pressure) *worker {
	workers := map[*corev1.Pod]*worker{}
	var loads []pod.Load
	usage, err := a.c.Runtime.Usage(ctx)
	if err != nil && p.starved != "pids" {
		a.c.Logger.Warn("the device is short of "+p.starved+", and the container runtime does not say who uses it", "err", err)
		return nil
	}
	for _, w := range a.running() {
		_, last := w.wanted()
		workers[last] = w
		loads = append(loads, a.load(w, last, p.starved, usage))
	}
	for _, first := range pod.Rank(loads) {
		if first.Uses < p.worth {
			continue // the device would be as full without it
		}
		w := workers[first.Pod]
		message := fmt.Sprintf("The node was low on resource: %s. %s The pod was using %s, request is %s.",
			p.starved, p.text, amount(p.starved, first.Uses), amount(p.starved, first.Requests))
		a.evict(w, first.Pod, message)
		return w
	}
	return nil
}

func amount(resource string, n int64) string {
	if resource == "memory" || resource == "ephemeral-storage" {
		return strconv.FormatInt(n>>10, 10) + "Ki"
	}
	return strconv.FormatInt(n, 10)
}

// evict ends a pod for good, as failed.
func (a *Agent) evict(w *worker, p *corev1.Pod, message string) {
	a.c.Logger.Warn("evicting a pod", "pod", w.name, "uid", w.uid, "why", message)
	a.event(p, "", corev1.EventTypeWarning, "Evicted", message)
	a.metrics.evictions.Inc()
	w.end(&pod.Ending{Reason: "Evicted", Message: message})
}

// running are the workers of pods that run, or are to run, and are not about to end.
func (a *Agent) running() []*worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*worker
	for _, w := range a.pods {
		if w.alive() {
			all = append(all, w)
		}
	}
	return all
}

// load is what a pod uses of what the device is short of.
func (a *Agent) load(w *worker, p *corev1.Pod, starved string, usage map[string]runtime.Usage) pod.Load {
	l := pod.Load{Pod: p}
	switch starved {
	case "memory":
		l.Requests = pod.Requested(p, corev1.ResourceMemory)
		for _, id := range w.ids() {
			l.Uses += usage[id].Memory
		}
	case "ephemeral-storage", "inodes":
		files := a.diskUsage(p)
		l.Uses, l.Requests = files.bytes, pod.Requested(p, corev1.ResourceEphemeralStorage)
		for _, id := range w.ids() {
			l.Uses += usage[id].Disk
		}
		if starved == "inodes" {
			l.Uses, l.Requests = files.count, 0
		}
	case "pids":
		l.Uses = a.processes(w.uid)
	}
	return l
}

// processes counts the processes and threads of a pod.
func (a *Agent) processes(uid string) int64 {
	var most int64
	for _, root := range a.cgroupRoots() {
		n, err := strconv.ParseInt(firstLine(filepath.Join(root, a.podCgroup(uid), "pids.current")), 10, 64)
		if err == nil {
			most = max(most, n)
		}
	}
	return most
}

// files is what a folder holds.
type files struct{ bytes, count int64 }

// diskUsage is what a pod has on the device's disk, without the layers of its containers: emptyDirs and logs.
func (a *Agent) diskUsage(p *corev1.Pod) files {
	sum := folder(a.podLogs(p.Namespace+"/"+p.Name, string(p.UID)))
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; onDisk(v) {
			f := folder(a.volumes.Path(p, v))
			sum.bytes, sum.count = sum.bytes+f.bytes, sum.count+f.count
		}
	}
	return sum
}

func onDisk(v *corev1.Volume) bool {
	return v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault
}

// folder adds up what is in a folder, as it is on the disk: holes cost nothing, blocks are whole.
func folder(dir string) (sum files) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what goes in the meantime is not there any more
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		sum.count++
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			sum.bytes += s.Blocks * 512 //nolint:unconvert // stat(2): in units of 512 bytes
		}
		return nil
	})
	return sum
}

// enforceDisk evicts the pods that have more on the disk than they may. Only pods with a limit are looked at.
func (a *Agent) enforceDisk(ctx context.Context) {
	var usage map[string]runtime.Usage
	for _, w := range a.running() {
		_, p := w.wanted()
		if p == nil || !limitsDisk(p) {
			continue
		}
		if usage == nil {
			var err error
			if usage, err = a.c.Runtime.Usage(ctx); err != nil {
				return
			}
		}
		if message := a.overDisk(w, p, usage); message != "" {
			a.evict(w, p, message)
		}
	}
}

func limitsDisk(p *corev1.Pod) bool {
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; onDisk(v) && v.EmptyDir.SizeLimit != nil && !v.EmptyDir.SizeLimit.IsZero() {
			return true
		}
	}
	found := false
	pod.Containers(p, func(c *corev1.Container, _ bool) {
		_, limited := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		found = found || limited
	})
	return found
}

// overDisk says which limit a pod exceeds, in kubelet's words; empty: none.
func (a *Agent) overDisk(w *worker, p *corev1.Pod, usage map[string]runtime.Usage) string {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if !onDisk(v) || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.IsZero() {
			continue
		}
		if folder(a.volumes.Path(p, v)).bytes > v.EmptyDir.SizeLimit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	var message string
	sum := a.diskUsage(p).bytes
	for name, id := range w.ids() {
		sum += usage[id].Disk
		c := pod.Find(p, name)
		if c == nil {
			continue
		}
		limit, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		logs := folder(filepath.Join(a.podLogs(w.name, w.uid), name)).bytes
		if ok && usage[id].Disk+logs > limit.Value() {
			message = fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", name, limit.String())
		}
	}
	if limit, all := pod.Limited(p, corev1.ResourceEphemeralStorage); all && message == "" && sum > limit {
		message = fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %d. ", limit)
	}
	return message
}
