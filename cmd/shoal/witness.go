package main

import (
	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/cmd/shoal/memory"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
)

func newWitness() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Run a witness: a vote for a site of two servers",
		Long: `Run a witness: a member of the control plane that votes and does nothing else. With it, a site of two servers goes on when either of
them is lost. It keeps no objects, serves no API, runs no pods and does not have the cluster's CA key, so a router or a camera will do.

The first start needs join.servers and a token of role 'witness' in the configuration file. It counts only while there are fewer than
three servers.`,
		Example: "  shoal token create --role witness\n  shoal witness --config /etc/shoal/witness.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, logger, err := load(file, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer memory.Keep(memory.Options{Logger: logger})()
			witness, err := wire.NewWitness(cmd.Context(), wire.Options{Config: c, Logger: logger, Version: version})
			if err != nil {
				return err
			}
			return witness.Run(cmd.Context())
		},
	}
	configFlag(cmd, &file)
	return cmd
}
