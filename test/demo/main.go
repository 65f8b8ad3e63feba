// Command demo narrates the main job on this machine: a cluster of five devices runs a real app through faults. It exits with
// status 0 only if every step held, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shoal-edge/shoal/test/scenario"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Stdout)
	stop()
	os.Exit(code)
}

// result is one row of the table at the end.
type result struct {
	name string
	took time.Duration
	err  error
}

func run(ctx context.Context, out io.Writer) int {
	n := &narrator{out: out, start: time.Now()}
	n.say("shoal on this machine: 5 devices, each with its own network, address, disk and containerd\n")
	env, err := scenario.New("demo", 0, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		n.say("demo: %v", err)
		return 1
	}
	err = n.tell(ctx, env)
	if err == nil {
		err = n.usage(env)
	}
	if err != nil && ctx.Err() == nil {
		n.evidence(env)
	}
	start := time.Now()
	closeErr := env.Lab.Close()
	n.row(result{"everything is cleaned up", time.Since(start), closeErr}, "no process, mount, link, cgroup or file is left")
	switch {
	case ctx.Err() != nil:
		n.say("\nStopped.")
		return 130
	case errors.Join(err, closeErr) != nil:
		n.say("\nFailed: %v", errors.Join(err, closeErr))
		return 1
	}
	n.summary()
	return 0
}

// tell runs the steps, and stops at the first that does not hold.
func (n *narrator) tell(ctx context.Context, env *scenario.Env) error {
	for _, step := range scenario.Steps() {
		n.pending(step.Name)
		text, took, err := step.Do(ctx, env)
		n.row(result{step.Name, took, err}, text)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	return nil
}
