// Package incoming owns the watching of a folder in which people put files for the agent, without polling.
package incoming

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the folder must be at rest: an editor writes a file in several steps.
const settle = 200 * time.Millisecond

// Watch calls changed at once, and whenever something in the folder may have changed, until ctx ends. A folder that is not there is made.
func Watch(ctx context.Context, dir string, changed func()) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	defer func() { _ = watcher.Close() }()
	if err := watcher.Add(dir); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	changed() // what happened before the watch
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-watcher.Errors:
			return fmt.Errorf("watch %s: %w", dir, err)
		case <-watcher.Events:
			timer.Reset(settle)
		case <-timer.C:
			changed()
		}
	}
}
