package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/cmd/shoal/memory"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
)

func newServer() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a server: a member of the control plane, and an agent",
		Long: `Run a server: a member of the control plane, and an agent that runs pods on this device.

Without join.servers in the configuration file the first start makes a new cluster. With join.servers and a token of role
'server' it joins that cluster as a further member. Later starts need neither.

Three servers survive the loss of one. Further ones are spares that take the place of a lost one; 'shoal members' lists them.

The kubeconfig of an administrator is written to DATADIR/admin.kubeconfig.`,
		Example: "  shoal server\n  shoal server --config /etc/shoal/config.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, logger, err := load(file, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer memory.Keep(memory.Options{Logger: logger, Pace: true})()
			server, err := wire.NewServer(cmd.Context(), wire.Options{Config: c, Logger: logger, Version: version})
			if err != nil {
				return err
			}
			return server.Run(cmd.Context())
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func newAgent() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run an agent: a device that runs pods",
		Long: `Run an agent: a device that runs pods and is not a member of the control plane.

The first start needs join.servers and a token of role 'agent' in the configuration file ('shoal token create' prints one).
Later starts use the certificate from the first; pods start from this device's own disk, with or without a network.`,
		Example: "  shoal agent --config /etc/shoal/config.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, logger, err := load(file, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer memory.Keep(memory.Options{Logger: logger})()
			agent, err := wire.NewAgent(cmd.Context(), wire.Options{Config: c, Logger: logger, Version: version})
			if err != nil {
				return err
			}
			return agent.Run(cmd.Context())
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration file (default: built-in defaults only)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

// load reads the configuration file and makes the process's logger from it.
func load(file string, stderr io.Writer) (configs.Config, *slog.Logger, error) {
	c, err := configs.Load(file)
	if err != nil {
		return c, nil, err
	}
	logger, err := newLogger(c.Log, stderr)
	return c, logger, err
}

func newLogger(c configs.Log, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}
