package firmware

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

func orDefault(d *metav1.Duration, standard time.Duration) time.Duration {
	if d == nil {
		return standard
	}
	return d.Duration
}

// Defaults of the health checks.
const (
	defaultProbation = time.Minute
	defaultDeadline  = 10 * time.Minute
)

// judge runs the health checks until they have held for the probation, or the deadline is over. It needs no network: only an assignment
// that asks for it, and a device that was connected before, look at the connection.
func (d *Device) judge(ctx context.Context) (outcome, error) {
	h := &d.record.Assignment.Health
	probation, deadline := orDefault(h.Probation, defaultProbation), orDefault(h.Deadline, defaultDeadline)
	if d.record.Connected {
		deadline = max(deadline, orDefault(h.Reconnect, 0))
	}
	began := time.Now()
	var since time.Time
	why := "no check has passed yet"
	defer func() { d.judged = 0 }()
	for ctx.Err() == nil {
		err := d.check(ctx, h, time.Since(began))
		if ctx.Err() != nil {
			break
		}
		now := time.Now()
		switch {
		case err != nil:
			since, why, d.judged = time.Time{}, err.Error(), 0
		case since.IsZero():
			since, d.judged = now, 1
		}
		if err == nil && now.Sub(since) >= probation {
			return outcome{event: Healthy}, nil
		}
		left := deadline + probation - now.Sub(began)
		if since.IsZero() {
			left = deadline - now.Sub(began)
		}
		if left <= 0 {
			return outcome{Unhealthy, "Unhealthy", why}, nil
		}
		d.report()
		pause := min(checkEvery, left)
		if !since.IsZero() {
			pause = min(pause, max(time.Millisecond, probation-now.Sub(since)))
		}
		if err := d.pause(ctx, pause); err != nil {
			break
		}
	}
	return outcome{}, nil
}

// pause waits for a time, whatever is told meanwhile.
func (d *Device) pause(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (d *Device) check(ctx context.Context, h *firmwarev1.Health, up time.Duration) error {
	if limit := orDefault(h.Reconnect, 0); limit > 0 && d.record.Connected && d.cfg.Reached != nil && !d.cfg.Reached() {
		return fmt.Errorf("the control plane was reached by the old release, and not for %s by this one", up.Round(time.Second))
	}
	if d.cfg.Check == nil {
		return nil
	}
	return d.cfg.Check(ctx, h)
}

// inWindow reports whether a device may restart at this time of day.
func inWindow(a *firmwarev1.Assignment, now time.Time) bool {
	return a == nil || a.Window == nil || sinceWindow(a.Window, now) < a.Window.Length.Duration
}

// sinceWindow is how long ago the window last began.
func sinceWindow(w *firmwarev1.Window, now time.Time) time.Duration {
	start, err := time.Parse("15:04", w.Start)
	if err != nil {
		return 24 * time.Hour // validation lets none through
	}
	now = now.UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), start.Hour(), start.Minute(), 0, 0, time.UTC)
	if at.After(now) {
		at = at.Add(-24 * time.Hour)
	}
	return now.Sub(at)
}

// untilWindow is how long to sleep at most: a clock that is set meanwhile is noticed within the hour.
func untilWindow(w *firmwarev1.Window, now time.Time) time.Duration {
	return min(time.Hour, max(time.Second, 24*time.Hour-sinceWindow(w, now)))
}
