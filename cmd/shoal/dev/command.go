package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// FakeOptions are what a cluster in one process is made from.
type FakeOptions struct {
	Servers, Agents int
	Out             io.Writer
}

// Option changes what Command makes.
type Option func(*command)

// WithFake gives the command its --fake-runtime: a cluster in this process, with a fake runtime, until ctx ends.
func WithFake(run func(context.Context, FakeOptions) error) Option {
	return func(c *command) { c.fake = run }
}

// command is one run of `shoal dev`.
type command struct {
	fake            func(context.Context, FakeOptions) error
	useFake         bool
	name            string
	subnet          uint8
	servers, agents int
	images          string
	out             io.Writer
}

// Command is `shoal dev`.
func Command(options ...Option) *cobra.Command {
	c := &command{}
	for _, o := range options {
		o(c)
	}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster of several devices on this machine until Ctrl-C",
		Long: `Run a cluster of several devices on this machine until Ctrl-C.

Each device has its own network, address, disk and containerd, and runs a real shoal process. The first agent (or server)
has a stand-in for a serial line, which pods ask for as shoal.dev/serial. Needs root and containerd; --fake-runtime needs
neither: the same API from one process, with pods that only look as if they ran.

Nothing is left behind, also not after a crash: the next run cleans up.`,
		Example: "  shoal dev\n  shoal dev --servers 1 --agents 4\n  shoal dev --fake-runtime",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.out = cmd.OutOrStdout()
			return c.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&c.servers, "servers", 3, "how many servers: control plane and agent in one process")
	flags.IntVar(&c.agents, "agents", 2, "how many agents")
	flags.StringVar(&c.images, "images", "", "OCI image layout to serve as "+RegistryHost+", or as the registry in an image's name")
	flags.StringVar(&c.name, "name", "dev", "name of the lab, to run several at a time")
	flags.Uint8Var(&c.subnet, "subnet", 2, "network of the devices: 10.77.SUBNET.0/24")
	flags.BoolVar(&c.useFake, "fake-runtime", false, "one process, no containers, no root")
	return cmd
}

func (c *command) run(ctx context.Context) error {
	if c.servers < 1 {
		return errors.New("dev: a cluster needs at least one server")
	}
	if c.useFake {
		if c.fake == nil {
			return errors.New("dev: this build has no fake runtime")
		}
		return c.fake(ctx, FakeOptions{Servers: c.servers, Agents: c.agents, Out: c.out})
	}
	lab, err := c.lab()
	if err != nil {
		return err
	}
	return errors.Join(c.cluster(ctx, lab), lab.Close())
}

func (c *command) lab() (*Lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("dev: %w", err)
	}
	cfg := Config{
		Name: c.name, Subnet: c.subnet, Shoal: self, Servers: c.servers, Agents: c.agents,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if c.images != "" {
		images, err := OpenImages(c.images)
		if err != nil {
			return nil, err
		}
		cfg.Images, cfg.ImageHosts = images, images.Hosts()
	}
	lab, err := New(cfg)
	if err != nil {
		return nil, err
	}
	first := lab.devices[0]
	if c.agents > 0 {
		first = lab.devices[c.servers]
	}
	if err := lab.AttachSerial(first); err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return lab, nil
}

// cluster starts the lab, tells what there is and waits for the end of ctx.
func (c *command) cluster(ctx context.Context, lab *Lab) error {
	start := time.Now()
	c.say("starting %d servers and %d agents ...", c.servers, c.agents)
	err := lab.Start(ctx)
	if err == nil {
		err = lab.WaitReady(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		c.quote(lab)
		return err
	}
	c.say("all devices are ready after %.1fs\n", time.Since(start).Seconds())
	for _, d := range lab.Devices() {
		line := ""
		if d.serial != nil {
			line = "   has shoal.dev/serial"
		}
		c.say("  %-10s %-14s enter it: nsenter -t %d -a   log: %s%s", d.Name, d.Address, d.Init(), d.ShoalLog(), line)
	}
	kubectl := "kubectl"
	beside := filepath.Join(filepath.Dir(lab.cfg.Shoal), "kubectl") // make dev has built one
	if _, err := os.Stat(beside); err == nil {
		kubectl = beside
	}
	c.say("\n  export KUBECONFIG=%s\n  %s get nodes -o wide", lab.Kubeconfig(), kubectl)
	if c.images != "" {
		c.say("  %s apply -f configs/examples/hello.yaml", kubectl)
	}
	c.say("\nCtrl-C ends the cluster and removes everything.")
	<-ctx.Done()
	c.say("\nending ...")
	return nil
}

// quote shows the ends of the logs before they are removed.
func (c *command) quote(lab *Lab) {
	for _, d := range lab.Devices() {
		if text, err := os.ReadFile(d.ShoalLog()); err == nil {
			c.say("== %s\n%s", filepath.Join(d.Name, filepath.Base(d.ShoalLog())), text[max(0, len(text)-2000):])
		}
	}
}

func (c *command) say(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format+"\n", args...) }
