package agent

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/logs"
	"github.com/shoal-edge/shoal/agent/pod"
	"github.com/shoal-edge/shoal/agent/probe"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// syncProbes watches exactly the running containers that have probes.
func (w *worker) syncProbes(ctx context.Context, p *corev1.Pod, found runtime.Pod) {
	running := map[string]bool{}
	for i := range found.Containers {
		c := &found.Containers[i]
		if p == nil || c.State != runtime.Running {
			continue
		}
		spec := pod.Find(p, c.Name)
		if spec == nil || !probe.Needed(spec) {
			continue
		}
		running[c.ID] = true
		if w.probes[c.ID] == nil {
			w.watch(ctx, p, spec, c, found)
		}
	}
	for id, cancel := range w.probes {
		if !running[id] {
			cancel()
			delete(w.probes, id)
		}
	}
}

func (w *worker) watch(ctx context.Context, p *corev1.Pod, spec *corev1.Container, c *runtime.Container, found runtime.Pod) {
	id := c.ID
	var ips []string
	for _, s := range found.Sandboxes {
		if s.ID == c.SandboxID {
			ips = s.IPs
		}
	}
	watched := &probe.Container{
		Startup: spec.StartupProbe, Readiness: spec.ReadinessProbe, Liveness: spec.LivenessProbe, StartedAt: c.StartedAt,
		Before: w.before(id),
		Check: func(ctx context.Context, p *corev1.Probe) error {
			if prober, ok := w.a.c.Runtime.(runtime.Prober); ok {
				return prober.Probe(ctx, id, p)
			}
			timeout := time.Duration(max(1, p.TimeoutSeconds)) * time.Second
			return w.target(spec, id, ips, timeout).Check(ctx, p.ProbeHandler)
		},
		Report: func(h pod.Health) {
			w.mu.Lock()
			w.health[id] = h
			w.mu.Unlock()
			w.nudge()
		},
		Failed: func(kind string, err error) {
			w.a.event(p, spec.Name, corev1.EventTypeWarning, "Unhealthy", kind+" probe failed: "+err.Error())
		},
	}
	w.mu.Lock()
	w.health[id] = watched.Initial()
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	w.probes[id] = cancel
	w.probing.Go(func() { watched.Watch(ctx) })
}

// before is the health of a container as an earlier run of the agent reported it.
func (w *worker) before(id string) *pod.Health {
	if w.prior == nil {
		return nil
	}
	for _, list := range [][]corev1.ContainerStatus{w.prior.ContainerStatuses, w.prior.InitContainerStatuses} {
		for _, cs := range list {
			if strings.HasSuffix(cs.ContainerID, "://"+id) {
				return &pod.Health{Started: cs.Started != nil && *cs.Started, Ready: cs.Ready}
			}
		}
	}
	return nil
}

// maxMessage bounds what is read of a termination message.
const maxMessage = 4096

// readTerminations reads what ended containers left as their last words, once.
func (w *worker) readTerminations(p *corev1.Pod, found runtime.Pod) {
	known := map[string]string{}
	for i := range found.Containers {
		c := &found.Containers[i]
		if c.State != runtime.Exited {
			continue
		}
		message, ok := w.termination[c.ID]
		if spec := pod.Find(p, c.Name); !ok && spec != nil {
			message = w.lastWords(spec, c)
		}
		known[c.ID] = message
	}
	w.termination = known
}

func (w *worker) lastWords(spec *corev1.Container, c *runtime.Container) string {
	data, err := readHead(w.a.terminationFile(w.uid, c.Name, c.Attempt), maxMessage)
	if err == nil && len(data) > 0 {
		return string(data)
	}
	if spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || c.ExitCode == 0 || c.LogPath == "" {
		return ""
	}
	var out strings.Builder
	if err := logs.Read(context.Background(), c.LogPath, &out, logs.Options{Tail: 80}); err != nil {
		return ""
	}
	text := out.String()
	return text[max(0, len(text)-2048):]
}

func readHead(file string, limit int) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, limit)
	n, err := f.Read(buf)
	if n > 0 {
		err = nil
	}
	return buf[:n], err
}

func (a *Agent) terminationFile(uid, container string, attempt uint32) string {
	return filepath.Join(a.volumes.Dir(uid), "termination", container, strconv.FormatUint(uint64(attempt), 10))
}
