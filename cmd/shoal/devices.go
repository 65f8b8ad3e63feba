package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
)

func newDevices() *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the hardware of this device, and what pods are offered of it",
		Long: `List the hardware of this device: serial ports, GPIO chips, I2C and SPI, USB devices, cameras, GPUs, NPUs, TPMs, watchdogs and disks.

RESOURCE is what a pod asks for to get one of them; where it is empty, LEFT OUT says why pods are not offered it. NAME stays the
same over reboots and re-plugging. The attributes (-o wide, -o json) are what agent.devices and agent.discover.exclude in the
configuration file match on, and what a pod's annotation devices.shoal.dev/<class> chooses by.

Nothing is asked of the agent, which need not run.`,
		Example: "  shoal devices\n  shoal devices --config /etc/shoal/config.yaml -o wide\n  shoal devices -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "wide" && output != "json" {
				return usageError{fmt.Errorf("--output %q must be table, wide or json", output)}
			}
			c, err := configs.Load(file)
			if err != nil {
				return err
			}
			found, err := hardware.Scan(wire.Hardware(c.Agent))
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(slices.Concat([]hardware.Device{}, found))
			}
			return printDevices(cmd.OutOrStdout(), found, output == "wide")
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, wide or json")
	return cmd
}

func printDevices(w io.Writer, found []hardware.Device, wide bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	head := "CLASS\tNAME\tNODE\tRESOURCE\tLEFT OUT"
	if wide {
		head += "\tATTRIBUTES"
	}
	_, _ = fmt.Fprintln(table, head)
	for _, d := range found {
		class, resource, left := orDash(d.Class), orDash(d.Resource), orDash(d.Left)
		line := strings.Join([]string{class, d.Name, d.Nodes[0], resource, left}, "\t")
		if wide {
			var attributes []string
			for _, key := range slices.Sorted(maps.Keys(d.Attributes)) {
				attributes = append(attributes, key+"="+d.Attributes[key])
			}
			line += "\t" + orDash(strings.Join(attributes, ","))
		}
		_, _ = fmt.Fprintln(table, line)
	}
	return table.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
