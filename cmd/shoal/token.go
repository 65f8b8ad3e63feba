package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/pki"
)

const secretsPath = "/api/v1/namespaces/kube-system/secrets"

func newToken() *cobra.Command {
	t := &adminCommand{}
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and delete join tokens",
		Long: `Make, list and delete join tokens.

A token lets devices of one role join until it expires. It carries the hash of the cluster's CA, so a device that holds it
cannot be fooled into another cluster. The cluster keeps only a hash of its secret part.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	t.kubeconfigFlag(cmd.PersistentFlags())
	cmd.AddCommand(t.create(), t.list(), t.delete())
	return cmd
}

func (t *adminCommand) create() *cobra.Command {
	var (
		role        string
		ttl         time.Duration
		description string
	)
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Make a join token and print it",
		Example: "  shoal token create --role agent --ttl 1h\n  shoal token create --role server --description 'rack 2'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]pki.Role{pki.RoleAgent, pki.RoleServer, pki.RoleWitness}, pki.Role(role)) {
				return usageError{fmt.Errorf("unknown role %q; use agent, server or witness", role)}
			}
			if ttl < 0 {
				return usageError{errors.New("--ttl must not be negative; 0 means for ever")}
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			token, info, err := createToken(cmd.Context(), client, pki.Role(role), ttl, description)
			if err != nil {
				return err
			}
			if t.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
					Token string `json:"token"`
					pki.TokenInfo
				}{token.String(), info})
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	cmd.Flags().StringVar(&role, "role", string(pki.RoleAgent), "what the token lets in: agent, server or witness")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long the token is valid; 0 means for ever")
	cmd.Flags().StringVar(&description, "description", "", "a note for people")
	t.outputFlag(cmd.Flags())
	return cmd
}

// createToken stores the token's Secret and returns the token, whose secret part is nowhere else.
func createToken(ctx context.Context, client *kube.Client, role pki.Role, ttl time.Duration, description string) (pki.Token, pki.TokenInfo, error) {
	token, err := pki.NewToken(client.CAHash())
	if err != nil {
		return token, pki.TokenInfo{}, err
	}
	var expiration time.Time
	if ttl > 0 {
		expiration = time.Now().Add(ttl)
	}
	secret := pki.NewTokenSecret(token, role, expiration, description)
	secret.APIVersion, secret.Kind = "v1", "Secret"
	if err := client.Do(ctx, http.MethodPost, secretsPath, secret, nil); err != nil {
		return token, pki.TokenInfo{}, err
	}
	info, err := pki.ReadTokenSecret(secret)
	return token, info, err
}

func (t *adminCommand) list() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the join tokens, without their secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			var secrets corev1.SecretList
			query := secretsPath + "?fieldSelector=type%3D" + "bootstrap.kubernetes.io%2Ftoken"
			if err := client.Do(cmd.Context(), http.MethodGet, query, nil, &secrets); err != nil {
				return err
			}
			infos := make([]pki.TokenInfo, 0, len(secrets.Items))
			for i := range secrets.Items {
				info, err := pki.ReadTokenSecret(&secrets.Items[i])
				if err != nil {
					return err
				}
				infos = append(infos, info)
			}
			if t.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(infos)
			}
			return printTokens(cmd.OutOrStdout(), infos)
		},
	}
	t.outputFlag(cmd.Flags())
	return cmd
}

func printTokens(w io.Writer, infos []pki.TokenInfo) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "ID\tROLE\tEXPIRES\tDESCRIPTION")
	for _, i := range infos {
		expires := "never"
		switch {
		case i.Expiration.IsZero():
		case time.Now().After(i.Expiration):
			expires = "expired"
		default:
			expires = "in " + time.Until(i.Expiration).Round(time.Minute).String()
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", i.ID, i.Role, expires, i.Description)
	}
	return table.Flush()
}

func (t *adminCommand) delete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID...",
		Short: "Delete join tokens; devices that joined with them stay",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			for _, id := range ids {
				if token, err := pki.ParseToken(id); err == nil {
					id = token.ID // the whole token is fine too
				}
				if err := client.Do(cmd.Context(), http.MethodDelete, secretsPath+"/"+pki.TokenSecretName(id), nil, nil); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "token %s deleted\n", id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
