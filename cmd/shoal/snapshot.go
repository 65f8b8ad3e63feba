package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/durable"
	"github.com/shoal-edge/shoal/raft"
)

// snapshotCommand is what the snapshot commands share. Not all of them ask the cluster.
type snapshotCommand struct{ adminCommand }

func newSnapshot() *cobra.Command {
	s := &snapshotCommand{}
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save, inspect and restore the cluster's state",
		Long: `Save, inspect and restore the cluster's state.

A snapshot is one file with all that kubectl can create: workloads, configuration, Secrets, nodes, and their revisions, true at
one moment, with a checksum. It does not have what lives in the leader's memory only (Events, the nodes' heartbeats), nor images,
volumes and logs, which are on the devices, nor the cluster's CA and the keys of Secrets, which are in the folder pki of each server.

Secrets are encrypted in it. To restore them, a cluster needs the keys of that time: keep a copy of pki/secrets.keys apart from it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	s.outputFlag(cmd.PersistentFlags())
	cmd.AddCommand(s.save(), s.inspect(), s.restore())
	return cmd
}

func (s *snapshotCommand) save() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Take a snapshot of the running cluster",
		Long: `Take a snapshot of the running cluster and put it into FILE, in the place of an older one only when it is complete.

Every write that was acknowledged before is in it. The cluster goes on meanwhile.`,
		Example: "  shoal snapshot save /backup/shoal.snapshot\n  shoal snapshot save --kubeconfig admin.kubeconfig $(date +%F).snapshot -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := s.client()
			if err != nil {
				return err
			}
			info, err := saveSnapshot(cmd.Context(), client, args[0], cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), args[0], info, false)
		},
	}
	s.kubeconfigFlag(cmd.Flags())
	return cmd
}

// saveSnapshot checks what arrives while it is written, and puts the file into its place at the end.
func saveSnapshot(ctx context.Context, client *kube.Client, path string, stderr io.Writer) (info raft.SnapshotInfo, err error) {
	response, err := client.Stream(ctx, http.MethodGet, apiserver.SnapshotPath, nil, 0)
	if err != nil {
		return info, err
	}
	defer func() { _ = response.Body.Close() }()
	err = durable.Replace(path, 0o600, func(w io.Writer) error {
		bar := newProgress(stderr, "saving", response.ContentLength)
		defer bar.end()
		if info, err = raft.InspectSnapshot(io.TeeReader(response.Body, io.MultiWriter(w, bar))); err != nil {
			return fmt.Errorf("%w; the server may have stopped meanwhile, try again", err)
		}
		return nil
	})
	return info, err
}

func (s *snapshotCommand) inspect() *cobra.Command {
	return &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Check a snapshot and say what is in it",
		Example: "  shoal snapshot inspect /backup/shoal.snapshot",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(s.output); err != nil {
				return err
			}
			info, _, err := inspectFile(args[0])
			if err != nil {
				return err
			}
			return s.print(cmd.OutOrStdout(), args[0], info, true)
		},
	}
}

func inspectFile(path string) (info raft.SnapshotInfo, size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return info, 0, err
	}
	defer func() { _ = file.Close() }()
	if info, err = raft.InspectSnapshot(file); err != nil {
		return info, 0, fmt.Errorf("%s: %w", path, err)
	}
	stat, err := file.Stat()
	if err != nil {
		return info, 0, err
	}
	return info, stat.Size(), nil
}

func (s *snapshotCommand) print(w io.Writer, path string, info raft.SnapshotInfo, resources bool) error {
	if s.output == "json" {
		return json.NewEncoder(w).Encode(struct {
			File string `json:"file"`
			raft.SnapshotInfo
		}{path, info})
	}
	if _, err := fmt.Fprintln(w, describe(path, info)); err != nil || !resources {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nRESOURCE\tOBJECTS\tBYTES")
	for _, r := range info.Resources {
		_, _ = fmt.Fprintf(table, "%s\t%d\t%d\n", r.Resource, r.Objects, r.Bytes)
	}
	return table.Flush()
}

func describe(path string, info raft.SnapshotInfo) string {
	saved := "at an unknown time"
	if !info.Saved.IsZero() {
		saved = info.Saved.Format(time.RFC3339)
	}
	return fmt.Sprintf("%s: %d objects (%d bytes) of the cluster %s at revision %d, term %d, saved %s, format %d, complete",
		path, info.Objects, info.Bytes, info.Cluster, info.Revision, info.Term, saved, info.Format)
}

func (s *snapshotCommand) restore() *cobra.Command {
	var (
		dataDir string
		force   bool
	)
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a snapshot the state of a cluster",
		Long: `Make a snapshot the state of a cluster.

Into a running cluster: the whole state is replaced, on all servers at the same moment. What was written since the snapshot was
taken is lost. Every object gets a new revision above all that were ever used; every watch ends and its client lists anew. On the
devices, pods that are not in the snapshot are stopped, those that are and still run go on without a restart, and the others are started.

With --data-dir, when all servers are lost: into the data folder of a server that does not run and has no state yet, as the first
server of a new cluster. The folder must have the server's identity (its folder pki): a copy of that of a lost server, so that
devices keep their certificates, or that of a server that was started once. In the latter case the folder raft must be moved away.`,
		Example: "  shoal snapshot restore /backup/shoal.snapshot\n  shoal snapshot restore shoal.snapshot --data-dir /var/lib/shoal",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(s.output); err != nil {
				return err
			}
			if dataDir != "" {
				return s.restoreOffline(cmd, args[0], dataDir)
			}
			return s.restoreOnline(cmd, args[0], force)
		},
	}
	s.kubeconfigFlag(cmd.Flags())
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "restore into this data folder of a server that does not run")
	cmd.Flags().BoolVar(&force, "force", false, "do not ask for a confirmation")
	cmd.MarkFlagsMutuallyExclusive("data-dir", "kubeconfig")
	return cmd
}

func (s *snapshotCommand) restoreOnline(cmd *cobra.Command, path string, force bool) error {
	info, size, err := inspectFile(path)
	if err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	warning := fmt.Sprintf("%s\nThe state of the cluster at %s becomes this. What was written since is lost.", describe(path, info), client.Server())
	if err := confirm(cmd, force, "--force", warning, "restore"); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	bar := newProgress(cmd.ErrOrStderr(), "sending", size)
	response, err := client.Stream(cmd.Context(), http.MethodPost, apiserver.SnapshotPath, io.TeeReader(file, bar), size)
	bar.end()
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	var restored wire.Restored
	if err := json.NewDecoder(response.Body).Decode(&restored); err != nil {
		return fmt.Errorf("the server's answer was cut off, look whether the snapshot was restored: %w", err)
	}
	if s.output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(restored)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored: %d objects of the cluster %s, all at revision %d\n",
		restored.Snapshot.Objects, restored.Cluster, restored.Revision)
	if err != nil || restored.Unreadable == 0 {
		return err
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(),
		"warning: %d Secrets were encrypted with keys that this cluster does not have: delete them and apply them again\n", restored.Unreadable)
	return err
}

func (s *snapshotCommand) restoreOffline(cmd *cobra.Command, path, dataDir string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, founded, err := wire.RestoreOffline(dataDir, file)
	if err != nil {
		return err
	}
	if s.output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
			Snapshot raft.SnapshotInfo `json:"snapshot"`
			raft.Founded
		}{info, founded})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored: %d objects, all at revision %d, in the new cluster %s; start 'shoal server' now\n",
		founded.Objects, founded.Revision, founded.Cluster)
	return err
}

// confirm asks a person to type a word, unless the flag that says yes is given.
func confirm(cmd *cobra.Command, yes bool, flag, warning, word string) error {
	if yes {
		return nil
	}
	if !isTerminal(cmd.InOrStdin()) {
		return usageError{fmt.Errorf("this needs a confirmation: say %s when nobody is there to type one", flag)}
	}
	if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType %q to go on: ", warning, word); err != nil {
		return err
	}
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != word {
		return errors.New("not confirmed, nothing was changed")
	}
	return nil
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// progress tells a person at a terminal how far a transfer is.
type progress struct {
	w           io.Writer // nil: nobody looks
	verb        string
	done, total int64
	told        time.Time
}

func newProgress(w io.Writer, verb string, total int64) *progress {
	p := &progress{verb: verb, total: total}
	if isTerminal(w) {
		p.w = w
	}
	return p
}

func (p *progress) Write(b []byte) (int, error) {
	p.done += int64(len(b))
	if p.w != nil && time.Since(p.told) > 200*time.Millisecond {
		p.told = time.Now()
		p.tell("")
	}
	return len(b), nil
}

func (p *progress) tell(end string) {
	// The picture is for people: if it cannot be drawn, the transfer goes on.
	of := ""
	if p.total > 0 {
		of = fmt.Sprintf(" of %d", p.total>>10)
	}
	_, _ = fmt.Fprintf(p.w, "\r%s: %d%s KiB%s", p.verb, p.done>>10, of, end)
}

func (p *progress) end() {
	if p.w != nil {
		p.tell("\n")
	}
}
