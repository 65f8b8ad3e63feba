// Command chaos runs episodes of faults on real servers and checks every promise of the store. Its last line is
// "N passed, N failed", and its exit status says the same.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/shoal-edge/shoal/test/chaos"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, complaints io.Writer) int {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(complaints)
	cfg := chaos.Config{
		Name: "chaos", Out: out, Evidence: filepath.Join(".build", "chaos"),
		Logger: slog.New(slog.NewTextHandler(complaints, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	flags.IntVar(&cfg.Episodes, "episodes", 200, "how many episodes")
	flags.Uint64Var(&cfg.Seed, "seed", 1, "the first episode's seed; the others follow")
	flags.BoolVar(&cfg.Short, "short", false, "episodes of two or three seconds, as in make test")
	flags.StringVar(&cfg.Shoal, "shoal", "bin/shoal", "the product")
	flags.StringVar(&cfg.Failpoints, "failpoints", ".build/shoal-failpoints", "the product, built with the tag shoal_failpoints")
	subnet := flags.Uint("subnet", 211, "network of the servers: 10.77.SUBNET.0/24")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	cfg.Subnet = uint8(*subnet)
	for _, binary := range []*string{&cfg.Shoal, &cfg.Failpoints} {
		path, err := filepath.Abs(*binary)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			_, _ = fmt.Fprintln(complaints, "chaos:", err)
			return 2
		}
		*binary = path
	}
	passed, failed, err := chaos.Run(ctx, cfg)
	if err != nil {
		_, _ = fmt.Fprintln(complaints, "chaos:", err)
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
	if err != nil || failed > 0 {
		return 1
	}
	return 0
}
