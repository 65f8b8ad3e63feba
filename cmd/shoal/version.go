package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/cmd/shoal/wire"
)

// version is set by the linker (-X main.version=...).
var version = "dev"

func newVersion() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of shoal and of the Kubernetes API that it serves",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info := struct {
				Version    string `json:"version"`
				Kubernetes string `json:"kubernetes"`
				Go         string `json:"go"`
				Platform   string `json:"platform"`
			}{version, wire.KubernetesVersion, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			switch output {
			case "":
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "shoal %s (Kubernetes API %s, %s, %s)\n", info.Version, info.Kubernetes, info.Go, info.Platform)
				return err
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(info)
			default:
				return usageError{fmt.Errorf("unknown output format %q; use json", output)}
			}
		},
	}
	outputFlag(cmd.Flags(), &output)
	return cmd
}
