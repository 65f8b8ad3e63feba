package agent

import (
	"context"
	"time"

	"github.com/shoal-edge/shoal/agent/pod"
)

// lookAround is how often is looked whether the pods have ended, while the device goes down and at no other time.
const lookAround = 100 * time.Millisecond

// shutDown ends all pods because the device goes down: those that the cluster needs last, in the last third of the time. Unlike
// kubelet it does not mark them as failed: they start again after the boot, also when nobody is there to replace them.
func (a *Agent) shutDown(ctx context.Context) {
	a.mu.Lock()
	a.down = true
	a.mu.Unlock()
	a.wakeNode()
	a.c.Logger.Info("the device goes down: ending its pods", "grace", a.c.ShutdownGrace)
	end := a.c.Now().Add(a.c.ShutdownGrace)
	last := a.c.ShutdownGrace / 3
	a.halt(ctx, false, end.Add(-last))
	a.halt(ctx, true, end)
}

// halt ends the pods that are critical, or those that are not, and returns when they have ended or at the deadline.
func (a *Agent) halt(ctx context.Context, critical bool, deadline time.Time) {
	ticker := time.NewTicker(lookAround)
	defer ticker.Stop()
	for {
		running := 0
		a.mu.Lock()
		for _, w := range a.pods {
			_, p := w.wanted()
			if p != nil && pod.Critical(p) != critical {
				continue
			}
			w.halt(deadline)
			if len(w.ids()) > 0 {
				running++
			}
		}
		a.mu.Unlock()
		now := a.c.Now()
		if running == 0 {
			return
		}
		if now.After(deadline) {
			a.c.Logger.Warn("the device goes down before all of its pods have ended", "left", running)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// halt ends the pod's containers for now.
func (w *worker) halt(deadline time.Time) {
	w.mu.Lock()
	first := w.halted.IsZero()
	w.halted = deadline
	w.mu.Unlock()
	if first {
		w.nudge()
	}
}
