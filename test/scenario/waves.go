package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// inWaves brings the app a release that does not run, which has to be taken back after its first pod, and then a good one.
func inWaves(ctx context.Context, e *Env) (string, error) {
	example := filepath.Join(e.Root, "configs", "examples", "rollout.yaml")
	manifest, err := os.ReadFile(example)
	if err != nil {
		return "", err
	}
	bad := strings.NewReplacer("hello-2", "hello-broken", "hello:v2", "hello:broken").Replace(string(manifest))
	if _, err := e.KubectlIn(ctx, strings.NewReader(bad), "apply", "-f", "-"); err != nil {
		return "", err
	}
	if err := e.waitRollout(ctx, "hello-broken", "Halted"); err != nil {
		return "", err
	}
	why, err := e.Kubectl(ctx, "get", "rollout", "hello-broken", "-o", "jsonpath={.status.why}")
	if err != nil {
		return "", err
	}
	if !strings.Contains(why, "wave canary: 1 failed") {
		return "", fmt.Errorf("the rollout of a broken release was halted for %q, want a failure of its canary", why)
	}
	if _, err := e.rolled(ctx, "v1"); err != nil {
		return "", fmt.Errorf("after the broken release: %w", err)
	}
	if _, err := e.Kubectl(ctx, "apply", "-f", example); err != nil {
		return "", err
	}
	if err := e.waitRollout(ctx, "hello-2", "Completed"); err != nil {
		return "", err
	}
	text, err := e.rolled(ctx, "v2")
	if err != nil {
		return "", fmt.Errorf("after the good release: %w", err)
	}
	return "the broken one was halted at one pod and taken back; then " + text, nil
}

func (e *Env) waitRollout(ctx context.Context, name, phase string) error {
	_, err := e.Kubectl(ctx, "wait", "rollout.fleet.shoal.dev/"+name, "--for=jsonpath={.status.phase}="+phase, "--timeout=50s")
	if err == nil {
		return nil
	}
	if out, statusErr := e.Kubectl(ctx, "get", "rollout.fleet.shoal.dev", name, "-o", "yaml"); statusErr == nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return err
}
