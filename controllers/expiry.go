package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/store"
)

// sweepDelay is how long events may be too many.
const sweepDelay = 10 * time.Second

// addEventExpiry removes events that are too old or too many. One key stands for all of them: it comes up soon after a new
// event, and when the oldest one gets too old; with no events it sleeps.
func (c *Controllers) addEventExpiry() {
	sweep := key(events, "", "sweep")
	l := c.newLoop("events", 1, func(ctx context.Context, _ store.Key) (time.Duration, error) { return c.sweepEvents(ctx) })
	c.follow(events, corev1.NamespaceAll, reader{changed: func(ch *change) {
		if ch.Type == store.Added {
			l.queue.addAfter(sweep, sweepDelay)
		}
	}})
}

func (c *Controllers) sweepEvents(ctx context.Context) (time.Duration, error) {
	all := store.List[corev1.Event](c.reader, corev1.NamespaceAll)
	slices.SortFunc(all, func(a, b *corev1.Event) int { return lastSeen(a).Compare(lastSeen(b)) })
	for i, event := range all {
		left := lastSeen(event).Add(c.cfg.EventLifetime).Sub(c.now())
		if left > 0 && len(all)-i <= c.cfg.Events {
			return left, nil
		}
		if _, err := c.client.Delete(ctx, key(events, event.Namespace, event.Name), nil); err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
	}
	return 0, nil
}

func lastSeen(e *corev1.Event) time.Time {
	last := e.CreationTimestamp.Time
	for _, at := range []time.Time{e.EventTime.Time, e.LastTimestamp.Time} {
		if at.After(last) {
			last = at
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(last) {
		last = e.Series.LastObservedTime.Time
	}
	return last
}
