// Command shoal is the one binary: a server (control plane and agent), an agent, and the tools that go with them. This package
// holds flags and messages only; package wire puts the parts together.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/cmd/shoal/dev"
	"github.com/shoal-edge/shoal/cmd/shoal/sim"
)

func main() {
	tuneMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// tuneMemory trades some collector time for resident memory: boards have 512 MB, and an idle daemon's heap is small, so
// collecting at half the usual growth costs little. GOGC in the environment wins.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// run executes one command line and returns the exit status: 0 success, 1 failure, 2 a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "shoal: "+strings.TrimPrefix(err.Error(), "shoal: "))
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a mistake in the command line itself.
type usageError struct{ error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "An orchestrator that lives on the devices it runs",
		Long: `shoal turns a handful of small boards into one self-governing cluster that speaks the Kubernetes API.

Start the first board with 'shoal server', make a join token there with 'shoal token create', and start the
others with 'shoal server' or 'shoal agent'. Then use kubectl. 'shoal dev' shows all of it on one machine.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newServer(), newAgent(), newWitness(), newMembers(), newDevices(), newRollout(), newToken(), newSnapshot(), newSecrets(), newAudit(),
		newRecover(), newImage(), newFirmware(), newLaunch(), newVersion(),
		dev.Command(dev.WithFake(runFake)), sim.Command(version),
	)
	return root
}
