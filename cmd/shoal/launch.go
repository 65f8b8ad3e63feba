package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/firmware/self"
)

func newLaunch() *cobra.Command {
	dir := filepath.Join(configs.DefaultDataDir, configs.DefaultSelf)
	cmd := &cobra.Command{
		Use:   "launch [--dir DIR] server|agent ...",
		Short: "Start the copy of shoal that is to run, for service managers",
		Long: `Start the copy of shoal that is to run, with the arguments that follow.

On a device whose agent.firmware.backend is self, shoal is updated in waves like any firmware: the new copy is started as often as it has
tries, and the old one again if it does not come up or is not healthy. This command, in the binary that the device was made with,
chooses. On other devices it starts that binary itself.`,
		Example: "  shoal launch agent --config /etc/shoal/config.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			own, err := os.Executable()
			if err != nil {
				return err
			}
			if args[0] == "launch" {
				return usageError{errors.New("launch cannot launch itself")}
			}
			return self.Launch(dir, own, args, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&dir, "dir", dir, "folder with the copies: agent.firmware.self.dir")
	return cmd
}
