package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/configs"
)

// adminCommand is what the commands share that ask the cluster as an administrator.
type adminCommand struct {
	kubeconfig string
	output     string
}

func (a *adminCommand) kubeconfigFlag(flags *pflag.FlagSet) {
	flags.StringVar(&a.kubeconfig, "kubeconfig", "",
		"kubeconfig of an administrator (default: $KUBECONFIG, else "+configs.DefaultDataDir+"/admin.kubeconfig)")
}

func (a *adminCommand) outputFlag(flags *pflag.FlagSet) { outputFlag(flags, &a.output) }

// client is a client of the cluster, once the flags are right.
func (a *adminCommand) client() (*kube.Client, error) {
	if err := checkOutput(a.output); err != nil {
		return nil, err
	}
	path := a.kubeconfig
	if path == "" {
		path = os.Getenv("KUBECONFIG")
	}
	if path == "" {
		path = filepath.Join(configs.DefaultDataDir, "admin.kubeconfig")
	}
	return kube.Load(path)
}

func outputFlag(flags *pflag.FlagSet, output *string) {
	flags.StringVarP(output, "output", "o", "", "output format: json")
}

func checkOutput(format string) error {
	if format != "" && format != "json" {
		return usageError{fmt.Errorf("unknown output format %q; use json", format)}
	}
	return nil
}
