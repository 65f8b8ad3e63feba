package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/raft"
)

func newRecover() *cobra.Command {
	var (
		file, output string
		yes          bool
	)
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on with this server alone after most servers were lost",
		Long: `Go on with this server alone after most servers were lost for good. shoal must not run on this device.

Two of three servers (or three of five) must agree to every write. When so many are lost that they cannot, and will not come
back, this command makes a new cluster of what this server has, with this server as its only one. If several servers are left,
run it on the one with the highest term and index.

Writes that only the lost servers had are gone. Devices keep their certificates and come back by themselves; their pods run on.
The old servers are refused from then on, also if they come back, until their state is gone: stop shoal there, move the folder
raft in their data folder away and start shoal. They join again by themselves.

Nothing is deleted: the state as it was stays beside the new one, under a dated name.`,
		Example: "  systemctl stop shoal\n  shoal recover --config /etc/shoal/config.yaml\n  systemctl start shoal",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			c, err := configs.Load(file)
			if err != nil {
				return err
			}
			survivor, err := wire.Survivor(c)
			if err != nil {
				return err
			}
			if err := askToRecover(cmd, c, &survivor, yes); err != nil {
				return err
			}
			founded, err := wire.Recover(c)
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(founded)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `recovered: %d objects, all at revision %d, in the new cluster %s
The state as it was is in %s.
Start shoal here now. On each other server: stop shoal, move the folder raft in its data folder away, start shoal.
`, founded.Objects, founded.Revision, founded.Cluster, founded.Before)
			return err
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for a confirmation")
	outputFlag(cmd.Flags(), &output)
	return cmd
}

// askToRecover shows what there is and who answers, and has a person decide.
func askToRecover(cmd *cobra.Command, c configs.Config, s *raft.Survivor, yes bool) error {
	answers := knock(cmd.Context(), c.NodeName, s.Members)
	if err := printSurvivor(cmd.ErrOrStderr(), c.NodeName, s, answers); err != nil {
		return err
	}
	voters, alive, witnesses := 0, 0, 0
	for _, m := range s.Members {
		if !m.Voter {
			continue
		}
		voters++
		switch {
		case m.Witness && answers[m.ID]:
			witnesses++
		case answers[m.ID] || m.ID == c.NodeName:
			alive++
		}
	}
	if voters > 1 && alive > voters/2 {
		return errors.New("enough servers answer to go on without a recovery: start shoal on this one instead; " +
			"if they are of another cluster by now, move the folder raft away first")
	}
	warning := "The servers that do not answer will be refused until their state is gone."
	if alive+witnesses > voters/2 {
		warning = "The witness answers: start shoal here first. It leads, unless it lacks writes that a lost server has; only then recover.\n" + warning
	}
	return confirm(cmd, yes, "--yes", warning, "recover "+c.NodeName)
}

func printSurvivor(w io.Writer, self string, s *raft.Survivor, answers map[string]bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintf(table, "cluster\t%s\nlast entry\tindex %d, term %d (newest term known: %d)\nstate\t%d objects, revision %d\nlast written\t%s\n",
		s.Cluster, s.Index, s.Term, s.Vote, s.Objects, s.Revision, s.Written.Format(time.RFC3339))
	if s.Salvaged > 0 {
		_, _ = fmt.Fprintf(table, "salvaged\t%d of the entries are from a damaged log; what came after them cannot be read\n", s.Salvaged)
	}
	_, _ = fmt.Fprintln(table, "\nSERVER\tADDRESS\tVOTES\tANSWERS")
	for _, m := range s.Members {
		answer := "no"
		switch {
		case m.ID == self:
			answer = "this one"
		case answers[m.ID]:
			answer = "yes"
		}
		name := m.ID
		if m.Witness {
			name += " (witness)"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%t\t%s\n", name, m.Address, m.Voter, answer)
	}
	return table.Flush()
}

// knock tries the other servers' ports.
func knock(ctx context.Context, self string, members []raft.Server) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var (
		group   sync.WaitGroup
		mu      sync.Mutex
		answers = map[string]bool{}
	)
	for _, m := range members {
		if m.ID == self || m.Address == "" {
			continue
		}
		group.Go(func() {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", m.Address)
			if err != nil {
				return
			}
			_ = conn.Close()
			mu.Lock()
			defer mu.Unlock()
			answers[m.ID] = true
		})
	}
	group.Wait()
	return answers
}
