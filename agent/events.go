package agent

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/transport"
)

// event tells what happened to a pod, for people. The same thing happening again has the same key, so that a link that is slow or away
// carries the last one only.
func (a *Agent) event(p *corev1.Pod, container, kind, reason, message string) {
	if p == nil {
		return
	}
	now := metav1.NewTime(a.c.Now()).Rfc3339Copy()
	id := sha256.Sum256([]byte(string(p.UID) + "\x00" + container + "\x00" + reason + "\x00" + message))
	count, since := a.told.again(string(id[:8]), now.Time)
	if count == 0 {
		return
	}
	e := &corev1.Event{
		InvolvedObject: corev1.ObjectReference{
			Kind: "Pod", APIVersion: "v1", Namespace: p.Namespace, Name: p.Name, UID: p.UID, FieldPath: fieldPath(p, container),
			ResourceVersion: p.ResourceVersion,
		},
		Type: kind, Reason: reason, Message: message[:min(len(message), 1024)],
		Source:         corev1.EventSource{Component: "kubelet", Host: a.c.NodeName},
		FirstTimestamp: metav1.NewTime(since), LastTimestamp: now, Count: count,
		ReportingController: "kubelet", ReportingInstance: a.c.NodeName,
	}
	e.Namespace, e.Name = p.Namespace, fmt.Sprintf("%s.%x", p.Name, id[:8])
	value, err := e.Marshal()
	if err != nil {
		return // an event is not worth a line in the log
	}
	a.tell(transport.Item{Key: "events/" + e.Namespace + "/" + e.Name, Value: value}, kind == corev1.EventTypeWarning)
}

// What is told again and again is told at most this often, after the first few times.
const (
	toldFreely  = 10
	toldEvery   = time.Minute
	maxMemories = 1024
)

// told remembers how often each event was told.
type told struct {
	mu   sync.Mutex
	seen map[string]*telling
}

type telling struct {
	count       int32
	first, last time.Time
}

// again counts an event and returns its count and when it was first told, or 0 when it is not to be told now.
func (t *told) again(id string, now time.Time) (int32, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil || len(t.seen) >= maxMemories {
		t.seen = map[string]*telling{}
	}
	known := t.seen[id]
	if known == nil {
		known = &telling{first: now}
		t.seen[id] = known
	}
	known.count++
	if known.count > toldFreely && now.Sub(known.last) < toldEvery {
		return 0, now
	}
	known.last = now
	return known.count, known.first
}

func fieldPath(p *corev1.Pod, container string) string {
	path := "spec.ephemeralContainers{" + container + "}"
	if pod.Find(p, container) == nil {
		path = ""
	}
	pod.Containers(p, func(c *corev1.Container, init bool) {
		switch {
		case c.Name != container:
		case init:
			path = "spec.initContainers{" + container + "}"
		default:
			path = "spec.containers{" + container + "}"
		}
	})
	return path
}
