package controllers

import (
	"context"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/store"
)

// loop reconciles keys, one at a time each, with a bounded number of workers.
type loop struct {
	name    string
	workers int
	logger  *slog.Logger
	queue   *queue[store.Key]
	// reconcile brings one object to where it should be. With a delay, it runs again then at the latest; with an error, it
	// runs again after a back-off.
	reconcile func(ctx context.Context, key store.Key) (again time.Duration, err error)
}

func (c *Controllers) newLoop(name string, workers int, reconcile func(context.Context, store.Key) (time.Duration, error)) *loop {
	l := &loop{
		name: name, workers: workers, logger: c.logger.With("controller", name),
		queue: newQueue[store.Key](), reconcile: reconcile,
	}
	c.loops = append(c.loops, l)
	return l
}

func (l *loop) add(key store.Key) { l.queue.add(key) }

// work is one worker.
func (l *loop) work(ctx context.Context) {
	for {
		key, ok := l.queue.next(ctx)
		if !ok {
			return
		}
		again, err := l.reconcile(ctx, key)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			l.complain(key, err)
			l.queue.failed(key)
		default:
			l.queue.succeeded(key)
			if again > 0 {
				l.queue.addAfter(key, again)
			}
		}
		l.queue.done(key)
	}
}

// complain logs an error; a write that came between is everyday life.
func (l *loop) complain(key store.Key, err error) {
	level := slog.LevelWarn
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		level = slog.LevelDebug
	}
	l.logger.Log(context.Background(), level, "reconcile failed, will try again", "key", key.String(), "error", err)
}
