package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
)

func newMembers() *cobra.Command {
	t := &adminCommand{}
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the members of the control plane",
		Long: `List the members of the control plane: the servers and the witness.

As many servers as server.voters says have a vote, the others are spares. The leader gives the vote of a server that has been silent
for server.voterGrace to a spare. HEALTH is what the leader sees: ok, or for how long a member has not followed.`,
		Example: "  shoal members\n  shoal members -o json\n  shoal members remove pi-4",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			var members []wire.Member
			if err := client.Do(cmd.Context(), http.MethodGet, apiserver.MembersPath, nil, &members); err != nil {
				return err
			}
			if t.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(members)
			}
			return printMembers(cmd.OutOrStdout(), members)
		},
	}
	t.kubeconfigFlag(cmd.PersistentFlags())
	t.outputFlag(cmd.Flags())
	cmd.AddCommand(&cobra.Command{
		Use:   "remove NAME...",
		Short: "Take members out that are gone for good",
		Long: `Take members out that are gone for good. A member that runs is refused: stop shoal there first. One that is started again joins
again, as a spare. Deleting the node of a dead server does the same by itself, after server.voterGrace.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := client.Do(cmd.Context(), http.MethodDelete, apiserver.MembersPath+"/"+url.PathEscape(name), nil, nil); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "member %s removed\n", name); err != nil {
					return err
				}
			}
			return nil
		},
	})
	return cmd
}

func printMembers(w io.Writer, members []wire.Member) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "NAME\tADDRESS\tKIND\tROLE\tHEALTH")
	for _, m := range members {
		address, health := m.Address, "ok"
		if address == "" {
			address = "<unknown>"
		}
		if !m.Healthy {
			health = fmt.Sprintf("silent for %s", time.Duration(m.SilentSeconds)*time.Second)
			if m.Behind > 0 {
				health += fmt.Sprintf(", behind by %d entries", m.Behind)
			}
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", m.Name, address, m.Kind, m.Role, health)
	}
	return table.Flush()
}
