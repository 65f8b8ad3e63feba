package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
)

// rotationLook is how often a waiting rotate-key looks how far the cluster is.
const rotationLook = 250 * time.Millisecond

// secretsCommand is what the commands for keys share.
type secretsCommand struct{ adminCommand }

func newSecrets() *cobra.Command {
	s := &secretsCommand{}
	cmd := &cobra.Command{
		Use:   "secrets",
		Short: "Look at and rotate the keys under which Secrets are stored",
		Long: `Look at and rotate the keys under which Secrets are stored.

Servers keep Secrets encrypted (AES-256-GCM): in the log, in the checkpoint, in snapshots and in memory. The keys are in one file on
each server, pki/secrets.keys in the data folder or server.secretsKeyFile in the configuration: who steals a card with both reads the
Secrets, so put the file on another medium where that matters. Keep a copy of it, but not where your snapshots are.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	s.kubeconfigFlag(cmd.PersistentFlags())
	s.outputFlag(cmd.PersistentFlags())
	cmd.AddCommand(s.status(), s.rotate(), s.drop())
	return cmd
}

func (s *secretsCommand) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "List the keys, and how many Secrets each encrypts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.do(cmd, func(_ context.Context, client *kube.Client) (wire.SecretsStatus, error) {
				return askSecrets(cmd.Context(), client, http.MethodGet, "")
			})
		},
	}
}

func (s *secretsCommand) rotate() *cobra.Command {
	var dropOld bool
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Encrypt all Secrets with a new key",
		Long: `Encrypt all Secrets with a new key, and wait until that is done.

Every server gets the new key before it is used: if one does not answer, nothing happens. The Secrets are then written anew one by
one, while the cluster works; if this command or the leader stops, the cluster goes on by itself. Applications see no change.

The old keys stay until --drop-old (or 'shoal secrets drop-old' later) takes them away. Snapshots from before are unreadable after
that, unless you kept a copy of the old keys: take a new one.`,
		Example: "  shoal secrets rotate-key\n  shoal secrets rotate-key --drop-old --kubeconfig admin.kubeconfig",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.do(cmd, func(ctx context.Context, client *kube.Client) (wire.SecretsStatus, error) {
				status, err := rotateKey(ctx, client)
				if err != nil || !dropOld {
					return status, err
				}
				return askSecrets(ctx, client, http.MethodPost, "drop-old")
			})
		},
	}
	cmd.Flags().BoolVar(&dropOld, "drop-old", false, "take the old keys away when no Secret needs them any more")
	return cmd
}

func (s *secretsCommand) drop() *cobra.Command {
	return &cobra.Command{
		Use:   "drop-old",
		Short: "Take away the keys that no Secret needs any more",
		Long: `Take the keys older than the present one away from all servers, for good.

It is refused while a Secret needs one of them, or while a server does not answer. Snapshots from before the rotation cannot be read
after that, unless you kept a copy of the old keys.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.do(cmd, func(ctx context.Context, client *kube.Client) (wire.SecretsStatus, error) {
				return askSecrets(ctx, client, http.MethodPost, "drop-old")
			})
		},
	}
}

// do runs a command and prints the state that it leaves.
func (s *secretsCommand) do(cmd *cobra.Command, act func(context.Context, *kube.Client) (wire.SecretsStatus, error)) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	status, err := act(cmd.Context(), client)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(status)
	}
	return printSecrets(cmd.OutOrStdout(), status)
}

func askSecrets(ctx context.Context, client *kube.Client, method, action string) (status wire.SecretsStatus, err error) {
	path := apiserver.SecretsPath
	if action != "" {
		path += "?action=" + action
	}
	return status, client.Do(ctx, method, path, nil, &status)
}

// rotateKey has the cluster take a new key, and waits until no Secret is encrypted with another one. A leader that is lost
// meanwhile is not the end of it: the next one goes on.
func rotateKey(ctx context.Context, client *kube.Client) (wire.SecretsStatus, error) {
	status, err := askSecrets(ctx, client, http.MethodPost, "rotate")
	for err == nil && status.Pending > 0 {
		select {
		case <-time.After(rotationLook):
		case <-ctx.Done():
			return status, ctx.Err()
		}
		status, err = askSecrets(ctx, client, http.MethodGet, "")
	}
	return status, err
}

func printSecrets(w io.Writer, status wire.SecretsStatus) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "KEY\tSTATE\tCREATED\tSECRETS")
	for _, k := range status.Keys {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\n", k.ID, k.State, k.Created.Format(time.RFC3339), k.Secrets)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if status.Pending+status.Unreadable == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "%d Secrets are still to be encrypted with the primary key (%d are plain), %d cannot be read\n",
		status.Pending, status.Plain, status.Unreadable)
	return err
}
