package fake

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/shoal-edge/shoal/agent/runtime"
)

// CreateContainer implements runtime.Runtime.
func (r *Runtime) CreateContainer(
	ctx context.Context, sandbox string, config *criapi.ContainerConfig, s *criapi.PodSandboxConfig,
) (string, error) {
	unlock, err := r.enter(ctx, "CreateContainer")
	if err != nil {
		return "", err
	}
	defer unlock()
	in := r.sandboxes[sandbox]
	if in == nil || !in.Ready {
		return "", fmt.Errorf("create container in sandbox %s: %w", sandbox, runtime.ErrNotFound)
	}
	for _, c := range r.containers {
		if c.SandboxID == sandbox && c.Name == config.Metadata.Name && c.Attempt == config.Metadata.Attempt {
			return "", fmt.Errorf("create container: name %s attempt %d is reserved", c.Name, c.Attempt)
		}
	}
	c := &container{Container: runtime.Container{
		ID: uuid.NewString(), SandboxID: sandbox, PodUID: in.UID, Name: config.Metadata.Name, Attempt: config.Metadata.Attempt,
		CreatedAt: time.Now(), Image: config.Image.GetImage(), ImageID: config.Image.GetImage(), Annotations: config.Annotations,
	}}
	if r.c.Behave != nil {
		c.how = r.c.Behave(config)
	}
	if s.GetLogDirectory() != "" && config.LogPath != "" && !r.c.NoLogs {
		c.LogPath = filepath.Join(s.LogDirectory, config.LogPath)
	}
	r.containers[c.ID] = c
	return c.ID, nil
}

// StartContainer implements runtime.Runtime.
func (r *Runtime) StartContainer(ctx context.Context, id string) error {
	if err := r.delay(ctx); err != nil {
		return err
	}
	unlock, err := r.enter(ctx, "StartContainer")
	if err != nil {
		return err
	}
	defer unlock()
	c := r.containers[id]
	switch {
	case c == nil:
		return fmt.Errorf("start container %s: %w", id, runtime.ErrNotFound)
	case c.State != runtime.Created:
		return fmt.Errorf("start container %s: it is not in the created state", id)
	case c.how.StartErr != nil:
		c.State, c.StartedAt, c.FinishedAt, c.ExitCode, c.Reason = runtime.Exited, time.Now(), time.Now(), 128, "StartError"
		return c.how.StartErr
	}
	if err := c.writeLog(c.how.Lines); err != nil {
		return err
	}
	c.State, c.StartedAt = runtime.Running, time.Now()
	if c.how.ExitAfter > 0 {
		c.timer = time.AfterFunc(c.how.ExitAfter, func() { r.Exit(id, c.how.ExitCode) })
	}
	return nil
}

// StopContainer implements runtime.Runtime.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	unlock, err := r.enter(ctx, "StopContainer")
	if err != nil {
		return err
	}
	c := r.containers[id]
	if c == nil || c.State != runtime.Running {
		unlock()
		return nil
	}
	if !c.how.Stubborn {
		r.exit(c, 143)
		unlock()
		return nil
	}
	unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(grace):
		r.Exit(id, 137)
		return nil
	}
}

// RemoveContainer implements runtime.Runtime.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	unlock, err := r.enter(ctx, "RemoveContainer")
	if err != nil {
		return err
	}
	defer unlock()
	if c := r.containers[id]; c != nil {
		r.exit(c, 137)
		delete(r.containers, id)
	}
	return nil
}

// ResizeContainer implements runtime.Runtime.
func (r *Runtime) ResizeContainer(ctx context.Context, id string, _ *criapi.LinuxContainerResources) error {
	unlock, err := r.enter(ctx, "ResizeContainer")
	if err != nil {
		return err
	}
	defer unlock()
	if c := r.containers[id]; c == nil || c.State != runtime.Running {
		return fmt.Errorf("resize container %s: %w", id, runtime.ErrNotFound)
	}
	return nil
}

// ReopenLog implements runtime.Runtime.
func (r *Runtime) ReopenLog(ctx context.Context, id string) error {
	unlock, err := r.enter(ctx, "ReopenLog")
	if err != nil {
		return err
	}
	defer unlock()
	c := r.containers[id]
	if c == nil {
		return fmt.Errorf("reopen log of %s: %w", id, runtime.ErrNotFound)
	}
	return c.writeLog([]string{})
}

// exit ends a running container; the caller holds the lock.
func (r *Runtime) exit(c *container, code int32) {
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.State != runtime.Running {
		return
	}
	c.State, c.FinishedAt, c.ExitCode = runtime.Exited, time.Now(), code
	c.Reason = "Error"
	if code == 0 {
		c.Reason = "Completed"
	}
	r.publish(c.ID)
}

func (r *Runtime) publish(id string) {
	for ch := range r.watchers {
		select {
		case ch <- runtime.Event{Type: runtime.ContainerExited, ID: id}:
		default: // as a real stream would: cut off who is too slow, so that it looks at everything again
			close(ch)
			delete(r.watchers, ch)
		}
	}
}
