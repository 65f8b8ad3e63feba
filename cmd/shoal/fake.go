package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
)

// runFake is `shoal dev --fake-runtime`: a cluster in this process until ctx ends.
func runFake(ctx context.Context, o dev.FakeOptions) (err error) {
	dir, err := os.MkdirTemp("", "shoal-fake-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	f, err := fleet.New(fleet.Config{Dir: dir, Servers: o.Servers, Agents: o.Agents, Version: version, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Start(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.Out, `%d servers and %d agents in this process; pods only look as if they ran.

  export KUBECONFIG=%s
  kubectl get nodes

Ctrl-C ends the cluster and removes everything.
`, o.Servers, o.Agents, f.Kubeconfig())
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
