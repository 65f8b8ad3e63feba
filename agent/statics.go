package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// staticPause is how long to wait before the folder is watched again, after its watch broke.
const staticPause = 10 * time.Second

// keepStatic makes the static pods be what their folder says, until ctx ends.
func (a *Agent) keepStatic(ctx context.Context) {
	for {
		err := a.static.Watch(ctx, a.readStatic)
		if ctx.Err() != nil {
			return
		}
		a.c.Logger.Warn("the folder of static pods is not watched, trying again", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(staticPause):
		}
	}
}

// readStatic brings the workers in line with the folder.
func (a *Agent) readStatic() {
	if a.static == nil {
		return
	}
	fresh := a.static.Read()
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid := range a.staticPods {
		if w := a.pods[uid]; fresh[uid] == nil && w != nil {
			a.c.Logger.Info("a static pod is not in its folder any more", "pod", w.name)
			w.want(nil)
		}
	}
	a.staticPods = fresh
	for uid, p := range fresh {
		switch w := a.pods[uid]; {
		case w == nil && a.staticBusy(p):
			// It is started when the one before it is gone.
		case w == nil:
			a.c.Logger.Info("a static pod", "pod", p.Namespace+"/"+p.Name, "uid", uid)
			a.startWorker(newWorker(a, uid, p, ""))
		default:
			if now, _ := w.wanted(); now == nil { // its file came back before it was gone
				w.want(p)
			}
		}
	}
}

// staticBusy reports whether an older static pod of that name still ends; the caller holds the lock.
func (a *Agent) staticBusy(p *corev1.Pod) bool {
	for _, w := range a.pods {
		if w.static && w.name == p.Namespace+"/"+p.Name {
			return true
		}
	}
	return false
}

// startStatic starts the static pod that has waited for w to be gone, if there is one; the caller holds the lock.
func (a *Agent) startStatic(w *worker) bool {
	for uid, p := range a.staticPods {
		if p.Namespace+"/"+p.Name == w.name && a.pods[uid] == nil {
			a.startWorker(newWorker(a, uid, p, ""))
			return true
		}
	}
	return false
}

// wasStatic reports whether a pod that runs came from the folder.
func (a *Agent) wasStatic(p runtime.Pod) bool {
	for _, s := range p.Sandboxes {
		if s.Annotations[pod.AnnotationSource] == "file" {
			return a.static != nil
		}
	}
	return false
}
