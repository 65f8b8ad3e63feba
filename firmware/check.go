package firmware

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"time"

	"k8s.io/utils/ptr"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

// checkTimeout bounds one health check, maxTold what is repeated of a command's output.
const (
	checkTimeout = 30 * time.Second
	maxTold      = 200
)

// Check runs the health checks of an assignment once and returns why the first one failed. pods is the agent's own.
func Check(ctx context.Context, h *firmwarev1.Health, pods func(ctx context.Context) error) error {
	if ptr.Deref(h.Pods, true) && pods != nil {
		if err := pods(ctx); err != nil {
			return err
		}
	}
	for _, unit := range h.Units {
		if err := command(ctx, "systemctl", "is-active", "--quiet", "--", unit); err != nil {
			return fmt.Errorf("unit %s is not active: %w", unit, err)
		}
	}
	for _, line := range h.Commands {
		if err := command(ctx, "/bin/sh", "-c", line); err != nil {
			return fmt.Errorf("command %q: %w", line, err)
		}
	}
	for _, url := range h.URLs {
		if err := answers(ctx, url); err != nil {
			return err
		}
	}
	return nil
}

func command(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = bytes.TrimSpace(out)
		return fmt.Errorf("%w: %s", err, out[max(0, len(out)-maxTold):])
	}
	return nil
}

func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close() // what it says does not matter
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
