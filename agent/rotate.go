package agent

import (
	"context"

	"github.com/shoal-edge/shoal/agent/logs"
	"github.com/shoal-edge/shoal/agent/runtime"
)

// rotateLogs keeps containers from filling the disk with what they say.
func (a *Agent) rotateLogs(ctx context.Context) {
	a.mu.Lock()
	paths := map[string]string{}
	for _, w := range a.pods {
		w.mu.Lock()
		for id, path := range w.logPaths {
			paths[id] = path
		}
		w.mu.Unlock()
	}
	a.mu.Unlock()
	for id, path := range paths {
		_, err := logs.Rotate(ctx, path, a.c.MaxLog, func(ctx context.Context) error { return a.c.Runtime.ReopenLog(ctx, id) })
		if err != nil && ctx.Err() == nil {
			a.c.Logger.Warn("log rotation", "file", path, "err", err)
		}
	}
}

// look returns a channel that is closed at the worker's next look at its pod, or nil when the container has ended.
func (w *worker) look(id string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state, known := w.seenIDs[id]; known && (state == runtime.Exited || state == runtime.Unknown) {
		return nil
	}
	if w.looked == nil {
		w.looked = make(chan struct{})
	}
	return w.looked
}
