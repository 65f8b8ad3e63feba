package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"

	"github.com/shoal-edge/shoal/agent/static"
	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/transport"
)

// Position implements transport.Device.
func (a *Agent) Position() (epoch, seq uint64) { return a.db.position() }

// Apply implements transport.Device: it stores the changes and wakes whom they concern.
func (a *Agent) Apply(ctx context.Context, epoch, seq uint64, full bool, items []transport.Item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	first, _ := a.db.position()
	changed, err := a.db.apply(epoch, seq, full, items)
	if err != nil {
		return err
	}
	for _, key := range changed {
		a.changed(key)
	}
	if first == 0 && a.ready.Load() {
		a.mu.Lock()
		run := a.run
		a.mu.Unlock()
		if run != nil {
			a.relist(run) // now it is known which pods nobody wants
		}
	}
	return nil
}

func (a *Agent) changed(key string) {
	kind, rest, _ := strings.Cut(key, "/")
	switch kind {
	case "pods":
		a.podChanged(key)
	case "reclaim":
		a.reclaim(key)
	case "configmaps", "secrets", "claims":
		namespace, name, _ := strings.Cut(rest, "/")
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, w := range a.pods {
			w.sourceChanged(kind, namespace, name)
		}
	case "anchors":
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, w := range a.pods {
			w.sourceChanged(kind, "", key)
		}
	case runtimeClasses:
		a.mu.Lock()
		defer a.mu.Unlock()
		a.wakeWaiting()
	case firmwareKey, releaseKey:
		a.tellFirmware()
	case "node":
		wake(a.networking)
		a.wakeNode()
	case "peers":
		wake(a.networking)
	}
}

// podChanged brings the workers in line with the desired pod of that key.
func (a *Agent) podChanged(key string) {
	p, err := a.desiredPod(key)
	if err != nil {
		a.c.Logger.Error("a pod from the control plane cannot be read; the one that runs is kept", "key", key, "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.pods {
		switch {
		case w.key() != key:
		case w.static:
			if p != nil && p.Annotations[static.AnnotationMirror] != w.uid || p != nil && p.DeletionTimestamp != nil || p == nil {
				w.reportAgain() // what shows it in the API is gone, or of another file
			}
		case p == nil || w.uid != string(p.UID):
			w.want(nil)
		}
	}
	if p != nil && p.Annotations[static.AnnotationMirror] != "" {
		return // it shows a static pod, and is none
	}
	for reported, item := range a.statuses {
		// What was reported as gone is forgotten when the control plane has forgotten it too.
		if item.Deleted && strings.HasPrefix(reported, key+"/") && (p == nil || reported != key+"/"+string(p.UID)) {
			delete(a.statuses, reported)
		}
	}
	if p == nil {
		return
	}
	if w := a.pods[string(p.UID)]; w != nil {
		w.want(p)
	} else {
		a.startWorker(newWorker(a, string(p.UID), p, ""))
	}
}

// desiredPod reads one pod from the database; nil when there is none.
func (a *Agent) desiredPod(key string) (*corev1.Pod, error) {
	value := a.db.desired(key)
	if value == nil {
		return nil, nil
	}
	p := &corev1.Pod{}
	if err := p.Unmarshal(value); err != nil {
		return nil, fmt.Errorf("decode pod: %w", err)
	}
	if p.UID == "" || "pods/"+p.Namespace+"/"+p.Name != key {
		return nil, errors.New("its name or uid is wrong")
	}
	return p, nil
}

// startDesired starts the workers of all pods in the database.
func (a *Agent) startDesired() {
	var keys []string
	a.db.each(bucketDesired, "pods/", func(key string, _ []byte) { keys = append(keys, key) })
	for _, key := range keys {
		a.podChanged(key)
	}
	wanted := map[string]bool{}
	a.mu.Lock()
	for uid := range a.pods {
		wanted[uid] = true
	}
	a.mu.Unlock()
	stale := map[string][]byte{}
	a.db.each(bucketStatus, "", func(uid string, _ []byte) {
		if !wanted[uid] {
			stale[uid] = nil
		}
	})
	if len(stale) > 0 {
		if err := a.db.put(bucketStatus, stale); err != nil {
			a.c.Logger.Error("database", "err", err)
		}
	}
}

// ConfigMap implements pod.Source.
func (a *Agent) ConfigMap(namespace, name string) *corev1.ConfigMap {
	c := &corev1.ConfigMap{}
	if value := a.db.desired("configmaps/" + namespace + "/" + name); value == nil || c.Unmarshal(value) != nil {
		return nil
	}
	return c
}

// Secret implements pod.Source.
func (a *Agent) Secret(namespace, name string) *corev1.Secret {
	s := &corev1.Secret{}
	if value := a.db.desired("secrets/" + namespace + "/" + name); value == nil || s.Unmarshal(value) != nil {
		return nil
	}
	return s
}

// anchors are the certificates that a projection asks for; ok is false when no trust bundle is meant by it.
func (a *Agent) anchors(p *corev1.ClusterTrustBundleProjection) (certificates []byte, ok bool) {
	key := api.AnchorsKey(p)
	if key == "" {
		return nil, false
	}
	value := a.db.desired(key)
	return value, value != nil
}

// runtimeClasses is what keys of RuntimeClasses begin with; they have no namespace.
const runtimeClasses = "runtimeclasses.node.k8s.io"

// runtimeHandler is what of the runtime runs the pod's containers, as its RuntimeClass says.
func (a *Agent) runtimeHandler(p *corev1.Pod) (string, error) {
	name := p.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	class := &nodev1.RuntimeClass{}
	value := a.db.desired(runtimeClasses + "/" + *name)
	if value == nil {
		return "", fmt.Errorf("runtimeclass.node.k8s.io %q not found", *name)
	}
	if err := class.Unmarshal(value); err != nil {
		return "", fmt.Errorf("runtimeclass.node.k8s.io %q: %w", *name, err)
	}
	return class.Handler, nil
}

// Servers are the control plane's addresses as last heard.
func (a *Agent) Servers() []string {
	return strings.Fields(string(a.db.desired("servers")))
}

// Status implements transport.Device.
func (a *Agent) Status() []transport.Item {
	a.mu.Lock()
	defer a.mu.Unlock()
	items := make([]transport.Item, 0, len(a.statuses)+1)
	if a.nodeValue != nil {
		items = append(items, transport.Item{Key: "node", Value: a.nodeValue})
	}
	for _, item := range a.statuses {
		items = append(items, item)
	}
	if item, ok := a.firmwareItem(); ok {
		items = append(items, item)
	}
	return items
}

// publish reports a pod's status, or with value nil that it is gone, and has it saved soon.
func (a *Agent) publish(key, uid string, value []byte) {
	item := transport.Item{Key: key + "/" + uid, Value: value, Deleted: value == nil}
	a.mu.Lock()
	a.statuses[item.Key] = item
	if p, err := a.desiredPod(key); item.Deleted && (err != nil || p == nil || string(p.UID) != uid) {
		delete(a.statuses, item.Key) // nobody asks for it any more
	}
	a.unsaved[uid] = value
	report := a.report
	a.mu.Unlock()
	wake(a.saving)
	if report != nil {
		report(item)
	}
}

// save writes statuses to the disk, a second after they changed so that the changes of a starting pod are one write.
func (a *Agent) save(ctx context.Context) { afterwards(ctx, a.saving, time.Second, a.saveNow) }

// afterwards does something each time that it is woken, a while after it, so that much that comes in that time is done at once.
func afterwards(ctx context.Context, woken <-chan struct{}, pause time.Duration, do func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-woken:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		do()
	}
}

func (a *Agent) saveNow() {
	a.mu.Lock()
	unsaved := a.unsaved
	a.unsaved = map[string][]byte{}
	a.mu.Unlock()
	if len(unsaved) == 0 {
		return
	}
	if err := a.db.put(bucketStatus, unsaved); err != nil {
		a.c.Logger.Error("pod statuses are not saved", "err", err)
	}
}
