package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/apiserver/audit"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check a server's record of requests",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuditVerify())
	return cmd
}

func newAuditVerify() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check that no line of an audit log was changed, taken out or put in",
		Long: `Check that no line of an audit log (server.audit.file) was changed, taken out or put in: each has the hash of the one before it. The
older files, FILE.1 and so on, are read first.

Lines that were taken off the end leave a whole chain. Keep the printed head elsewhere, and look for it in a later chain. Whoever
may write the files may also write a new chain: then the head that you kept is not in it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := audit.Verify(args[0])
			if err != nil {
				return fmt.Errorf("the audit log does not hold together: %w", err)
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d lines in %d files hold together, from %s to %s\nhead %s\n%d events were dropped, %d lines were left unfinished\n",
				s.Lines, s.Files, s.First.Format(time.RFC3339), s.Last.Format(time.RFC3339), s.Head, s.Dropped, s.Torn)
			return err
		},
	}
	outputFlag(cmd.Flags(), &output)
	return cmd
}
