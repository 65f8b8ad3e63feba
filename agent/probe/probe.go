// Package probe owns the checks of containers' health: when they run, what makes them count, and how they ask over HTTP,
// TCP, gRPC or by a command.
package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/agent/pod"
)

// ErrUnknown is what a check answers that could not be made; it counts neither as healthy nor as unhealthy.
var ErrUnknown = errors.New("the check could not be made")

// Container is what is watched.
type Container struct {
	Startup, Readiness, Liveness *corev1.Probe
	// StartedAt is when it started. Before is its health as known from an earlier run of the agent.
	StartedAt time.Time
	Before    *pod.Health
	// Check makes one check.
	Check func(ctx context.Context, p *corev1.Probe) error
	// Report is told the health whenever it changes, and Failed each check that failed. Both must be quick.
	Report func(pod.Health)
	Failed func(kind string, err error)
}

// Needed reports whether a container has anything to watch.
func Needed(c *corev1.Container) bool {
	return c.StartupProbe != nil || c.ReadinessProbe != nil || c.LivenessProbe != nil
}

// Initial is the health of a container that just started, or was adopted by a restarted agent.
func (c *Container) Initial() pod.Health {
	h := pod.Health{Started: c.Startup == nil, Ready: c.Readiness == nil}
	if c.Before != nil {
		h.Started, h.Ready = h.Started || c.Before.Started, h.Ready || c.Before.Ready
	}
	return h
}

// Watch runs the probes until ctx ends, or until the container must be stopped.
func (c *Container) Watch(ctx context.Context) {
	w := &watch{Container: c, health: c.Initial(), changes: make(chan func(*pod.Health), 1)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { w.own(ctx, cancel); return nil })
	if !w.health.Started && c.Startup != nil {
		if !w.loop(ctx, "Startup", c.Startup, false, func(h *pod.Health, ok bool, err error) {
			if h.Started = ok; !ok {
				h.Failed, h.Grace = fmt.Sprintf("its startup probe failed: %v", err), grace(c.Startup)
			}
		}) {
			cancel()
		}
	}
	if c.Readiness != nil {
		g.Go(func() error {
			w.loop(ctx, "Readiness", c.Readiness, true, func(h *pod.Health, ok bool, _ error) { h.Ready = ok })
			return nil
		})
	}
	if c.Liveness != nil {
		g.Go(func() error {
			w.loop(ctx, "Liveness", c.Liveness, true, func(h *pod.Health, ok bool, err error) {
				if !ok {
					h.Failed, h.Grace = fmt.Sprintf("its liveness probe failed: %v", err), grace(c.Liveness)
				}
			})
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
}

type watch struct {
	*Container
	health  pod.Health
	changes chan func(*pod.Health)
}

// own is the goroutine that owns the health.
func (w *watch) own(ctx context.Context, cancel context.CancelFunc) {
	health := w.health
	for {
		select {
		case <-ctx.Done():
			return
		case change := <-w.changes:
			before := health
			if change(&health); health != before {
				w.Report(health)
			}
			if health.Failed != "" {
				cancel() // it will be stopped; no check of it says anything any more
				return
			}
		}
	}
}

// loop runs one probe. With forever it goes on until ctx ends; without, it returns true at the first success that counts.
func (w *watch) loop(ctx context.Context, kind string, p *corev1.Probe, forever bool, set func(h *pod.Health, ok bool, err error)) bool {
	period := seconds(p.PeriodSeconds, 10)
	timer := time.NewTimer(max(0, time.Until(w.StartedAt.Add(time.Duration(p.InitialDelaySeconds)*time.Second))))
	defer timer.Stop()
	var last bool
	var run int32
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			timer.Reset(period)
		}
		err := w.check(ctx, p)
		if ctx.Err() != nil {
			return false
		}
		if errors.Is(err, ErrUnknown) {
			continue
		}
		ok := err == nil
		if !ok {
			w.Failed(kind, err)
		}
		if run++; ok != last {
			last, run = ok, 1
		}
		if threshold := max(1, p.SuccessThreshold); ok && run < threshold {
			continue
		}
		if threshold := p.FailureThreshold; !ok && run < max(1, threshold) {
			continue
		}
		select {
		case <-ctx.Done():
			return false
		case w.changes <- func(h *pod.Health) { set(h, ok, err) }:
		}
		if !forever && ok {
			return true
		}
	}
}

func (w *watch) check(ctx context.Context, p *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(p.TimeoutSeconds, 1))
	defer cancel()
	return w.Check(ctx, p)
}

func grace(p *corev1.Probe) time.Duration {
	if p.TerminationGracePeriodSeconds == nil {
		return 0
	}
	return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
}

func seconds(n int32, otherwise time.Duration) time.Duration {
	if n <= 0 {
		return otherwise * time.Second
	}
	return time.Duration(n) * time.Second
}
