// Package sim owns `shoal sim`: a real server process and thousands of agents in one other process, whose containers are not
// real and whose links are. It tells what a fleet costs its leader.
package sim

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/cmd/shoal/memory"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
)

// options are the command line's.
type options struct {
	devices  int
	carrier  string
	frugal   bool
	idle     time.Duration
	settle   time.Duration
	comeBack bool
	pods     int
	dir      string
	output   string
	version  string
	out, log io.Writer
}

// Limits of what is asked for, so that a slip of the finger does not fell the machine.
const (
	maxDevices = 16000
	// The promises that the passes are about.
	maxRegister = 60 * time.Second
	maxReturn   = 60 * time.Second
	maxBytes    = 20 << 10
	maxIdlePart = 0.10 // of a core
)

// Command is `shoal sim`.
func Command(version string) *cobra.Command {
	o := options{version: version}
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a fleet: a real server, and thousands of devices with links that are real",
		Long: `Simulate a fleet: a real server in a process of its own, and thousands of devices in this one. Their containers only look as if they
ran; their joins, certificates, links and reports are those of real devices.

It measures how long the fleet takes to register, how much memory a device costs the leader, how much of a core the leader
needs while nothing happens, and, with --return, how long the fleet takes to come back after the leader was killed. What
is promised is checked; the last line is 'N passed, M failed', and the exit status tells the same. Each device needs about a third of a
megabyte here, and a file descriptor in either process.`,
		Example: "  shoal sim --devices 1000\n  shoal sim --devices 1000 --carrier mqtt --return -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out, o.log = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := o.validate(); err != nil {
				return err
			}
			return run(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.devices, "devices", 1000, "how many devices")
	flags.StringVar(&o.carrier, "carrier", configs.LinkGRPC, "their links: grpc or mqtt")
	flags.BoolVar(&o.frugal, "frugal", false, "links that cost as little as they can while nothing happens (agent.idle: frugal)")
	flags.DurationVar(&o.idle, "idle", 30*time.Second, "how long the leader's processor time is measured while nothing happens")
	flags.DurationVar(&o.settle, "settle", 45*time.Second, "how long the leader is left alone before it is measured")
	flags.BoolVar(&o.comeBack, "return", false, "kill the leader, start it again, and wait for the fleet to come back")
	flags.IntVar(&o.pods, "pods", 0, "pods for each device, made after it has registered")
	flags.StringVar(&o.dir, "dir", "", "folder for the server's and the devices' files (default: a temporary one; the devices' in memory)")
	flags.StringVarP(&o.output, "output", "o", "", "json for a machine to read")
	cmd.AddCommand(serve(version))
	return cmd
}

func (o *options) validate() error {
	switch {
	case o.devices < 1 || o.devices > maxDevices:
		return fmt.Errorf("sim: --devices must be between 1 and %d", maxDevices)
	case o.carrier != configs.LinkGRPC && o.carrier != configs.LinkMQTT:
		return fmt.Errorf("sim: --carrier %q must be grpc or mqtt", o.carrier)
	case o.output != "" && o.output != "json":
		return fmt.Errorf("sim: --output %q must be json", o.output)
	case o.idle < time.Second || o.settle < 0 || o.pods < 0 || o.pods > 100:
		return errors.New("sim: --idle must be at least 1s, --settle not negative, and --pods at most 100")
	}
	return nil
}

// idleMode is agent.idle of the devices.
func (o *options) idleMode() string {
	if o.frugal {
		return configs.IdleFrugal
	}
	return configs.IdleNormal
}

// serve is the server's process: as `shoal server`, with containers that are not real.
func serve(version string) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "serve", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configs.Load(file)
			if err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			defer memory.Keep(memory.Options{Logger: logger, Pace: true})()
			server, err := wire.NewServer(cmd.Context(), wire.Options{Config: c, Logger: logger, Version: version, Runtime: newRuntime(0)})
			if err != nil {
				return err
			}
			return server.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	return cmd
}
