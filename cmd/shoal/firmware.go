package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/durable"
	"github.com/shoal-edge/shoal/firmware/maker"
)

const (
	rootLife    = 10 * 365 * 24 * time.Hour
	releaseLife = 2 * 365 * 24 * time.Hour
)

// firmwareCommand is what the firmware commands share.
type firmwareCommand struct {
	output string
	// For roots.
	rootKeys, releaseKeys []string
	threshold             int
	// Keys to sign with, and for how long that is good.
	keys  []string
	valid time.Duration
}

func newFirmware() *cobra.Command {
	f := &firmwareCommand{}
	cmd := &cobra.Command{
		Use:   "firmware",
		Short: "Pack, sign and carry releases of firmware, and look at them",
		Long: `Pack, sign and carry releases of firmware, and look at them.

Devices that were made with a root (agent.firmware.root) install only what was signed under it, whatever the cluster tells them. These
commands are for those who make releases, on machines of their own: they ask no cluster. What is signed is kept in a folder (TUF metadata,
without private keys), which belongs into version control.`,
		Example: `  shoal firmware key ann.key; shoal firmware key builder.key
  shoal firmware init releases --root-key ann.key --release-key builder.key
  shoal firmware sign releases os-2.4.1.yaml --key builder.key --artifact image=os.img --to signed.yaml
  kubectl apply -f signed.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	outputFlag(cmd.PersistentFlags(), &f.output)
	cmd.AddCommand(f.key(), f.init(), f.rotate(), f.signRoot(), f.sign(), f.inspect(), f.pack(), f.export(), f.importFolder())
	return cmd
}

// say prints a result, as JSON if that is wanted.
func (f *firmwareCommand) say(w io.Writer, result any, text string, args ...any) error {
	if f.output == "json" {
		return json.NewEncoder(w).Encode(result)
	}
	_, err := fmt.Fprintf(w, text+"\n", args...)
	return err
}

func (f *firmwareCommand) key() *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Make a key: FILE, which stays with its owner, and FILE.pub for the others",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(f.output); err != nil {
				return err
			}
			k, err := maker.NewKey(args[0])
			if err != nil {
				return err
			}
			return f.say(cmd.OutOrStdout(), map[string]string{"private": args[0], "public": args[0] + ".pub", "id": k.ID},
				"%s and %s.pub, key %s", args[0], args[0], k.ID)
		},
	}
}

func (f *firmwareCommand) roleFlags(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.rootKeys, "root-key", nil, "a key, or its public half, of somebody who may change the keys; for each of them")
	flags.IntVar(&f.threshold, "threshold", 1, "how many of the root keys it takes")
	flags.StringArrayVar(&f.releaseKeys, "release-key", nil, "a key, or its public half, that releases may be signed with; for each of them")
	flags.DurationVar(&f.valid, "valid", rootLife, "for how long devices believe this root")
}

func (f *firmwareCommand) roles() (r maker.Roles, err error) {
	if err := checkOutput(f.output); err != nil {
		return r, err
	}
	r = maker.Roles{Threshold: f.threshold, Expires: time.Now().Add(f.valid).UTC().Truncate(time.Second)}
	if r.Root, err = maker.LoadKeys(f.rootKeys); err != nil {
		return r, err
	}
	r.Release, err = maker.LoadKeys(f.releaseKeys)
	return r, err
}

// propose is what a command does that begins a root: the keys that are whole sign it at once.
func (f *firmwareCommand) propose(begin func(dir string, r maker.Roles) (*maker.Folder, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		r, err := f.roles()
		if err != nil {
			return err
		}
		folder, err := begin(args[0], r)
		if err != nil {
			return err
		}
		return f.signRootWith(cmd, args[0], folder, r.Root)
	}
}

// open is a folder and the keys to sign with.
func (f *firmwareCommand) open(dir string) (*maker.Folder, []*maker.Key, error) {
	if err := checkOutput(f.output); err != nil {
		return nil, nil, err
	}
	folder, err := maker.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	keys, err := maker.LoadKeys(f.keys)
	return folder, keys, err
}

func (f *firmwareCommand) init() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Begin a folder of signed metadata with a first root",
		Long: `Begin a folder of signed metadata with a first root, DIR/root.json, which devices are made with (agent.firmware.root).

The root is signed at once with those root keys whose private half is named. The others sign with 'shoal firmware sign-root', each where
their key is; the folder goes from one to the next.`,
		Example: "  shoal firmware init releases --root-key ann.key --root-key bob.key.pub --root-key eve.key.pub --threshold 2 --release-key builder.key.pub",
		Args:    cobra.ExactArgs(1),
		RunE:    f.propose(maker.Init),
	}
	f.roleFlags(cmd.Flags())
	return cmd
}

func (f *firmwareCommand) rotate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate DIR",
		Short: "Change the keys: begin a next root",
		Long: `Change the keys: begin a next root, in the place of the present one when enough of its keys and enough of the present one's have signed.

Devices with an older root follow: each release that is signed from then on carries the roots in between.`,
		Args: cobra.ExactArgs(1),
		RunE: f.propose(func(dir string, r maker.Roles) (*maker.Folder, error) {
			folder, err := maker.Open(dir)
			if err != nil {
				return nil, err
			}
			return folder, folder.Rotate(r)
		}),
	}
	f.roleFlags(cmd.Flags())
	return cmd
}

func (f *firmwareCommand) signRoot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sign-root DIR --key FILE...",
		Short: "Sign the root that waits for signatures",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder, keys, err := f.open(args[0])
			if err != nil {
				return err
			}
			return f.signRootWith(cmd, args[0], folder, keys)
		},
	}
	f.keyFlag(cmd)
	return cmd
}

func (f *firmwareCommand) keyFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.keys, "key", nil, "a private key to sign with; may be given several times")
	_ = cmd.MarkFlagRequired("key")
}

func (f *firmwareCommand) signRootWith(cmd *cobra.Command, dir string, folder *maker.Folder, keys []*maker.Key) error {
	whole := keys[:0:0]
	for _, k := range keys {
		if k.Whole() {
			whole = append(whole, k)
		}
	}
	version, missing, err := folder.SignRoot(whole)
	if err != nil {
		return err
	}
	result := map[string]any{"version": version, "missingSignatures": missing}
	if missing > 0 {
		return f.say(cmd.OutOrStdout(), result, "root %d lacks %d more signature(s): shoal firmware sign-root %s --key FILE", version, missing, dir)
	}
	return f.say(cmd.OutOrStdout(), result, "root %d is in force: %s", version, filepath.Join(dir, "root.json"))
}

func (f *firmwareCommand) sign() *cobra.Command {
	var files []string
	var to string
	cmd := &cobra.Command{
		Use:   "sign DIR RELEASE --key FILE",
		Short: "Sign a release",
		Long: `Sign a release: a YAML or JSON file with an object of kind Release, without spec.metadata.

Sizes and hashes of artifacts are taken from their files (--artifact), and may be left out of RELEASE then. The release with its signed
metadata goes to standard output, or to a file; kubectl apply brings it into a cluster.`,
		Example: "  shoal firmware sign releases os-2.4.1.yaml --key builder.key --artifact image=build/os.img | kubectl apply -f -",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder, keys, err := f.open(args[0])
			if err != nil {
				return err
			}
			release, err := readRelease(args[1])
			if err != nil {
				return err
			}
			artifacts, err := filesOf(release, files)
			if err != nil {
				return err
			}
			if err := measure(artifacts, cmd.ErrOrStderr()); err != nil {
				return err
			}
			now := time.Now()
			if err := folder.SignRelease(release, keys, now, now.Add(f.valid).UTC().Truncate(time.Second)); err != nil {
				return err
			}
			return f.write(cmd.OutOrStdout(), release, to)
		},
	}
	f.keyFlag(cmd)
	cmd.Flags().StringArrayVar(&files, "artifact", nil, "NAME=FILE: the file of an artifact; may be given several times")
	cmd.Flags().StringVar(&to, "to", "", "file for the signed release (default: standard output)")
	cmd.Flags().DurationVar(&f.valid, "valid", releaseLife, "for how long devices believe what is signed now")
	return cmd
}

// readRelease reads a file that people write: what it says and nobody knows is an error.
func readRelease(path string) (*firmwarev1.Release, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &firmwarev1.Release{}
	if err := yaml.UnmarshalStrict(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.APIVersion != firmwarev1.GroupVersion().String() || r.Kind != "Release" {
		return nil, fmt.Errorf("%s: want apiVersion %s and kind Release", path, firmwarev1.GroupVersion())
	}
	return r, nil
}

// artifactOf is the release's artifact of that name, or nil.
func artifactOf(r *firmwarev1.Release, name string) *firmwarev1.Artifact {
	for i := range r.Spec.Artifacts {
		if r.Spec.Artifacts[i].Name == name {
			return &r.Spec.Artifacts[i]
		}
	}
	return nil
}

// fileOf is an artifact of a release and the file that has it.
type fileOf struct {
	*firmwarev1.Artifact
	path string
}

// filesOf reads NAME=FILE pairs.
func filesOf(r *firmwarev1.Release, pairs []string) (all []fileOf, err error) {
	for _, pair := range pairs {
		name, path, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("--artifact %s: want NAME=FILE", pair)}
		}
		found := artifactOf(r, name)
		if found == nil {
			return nil, fmt.Errorf("--artifact %s: the release has no artifact of that name", pair)
		}
		all = append(all, fileOf{found, path})
	}
	return all, nil
}

// measure takes sizes and hashes from the artifacts' files.
func measure(files []fileOf, stderr io.Writer) error {
	for _, f := range files {
		file, err := os.Open(f.path)
		if err != nil {
			return err
		}
		stat, err := file.Stat()
		if err == nil {
			bar := newProgress(stderr, "reading "+f.Name, stat.Size())
			err = maker.Measure(f.Artifact, io.TeeReader(file, bar))
			bar.end()
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (f *firmwareCommand) write(stdout io.Writer, r *firmwarev1.Release, to string) error {
	data, err := json.Marshal(r)
	if err == nil && f.output != "json" {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		return err
	}
	if to != "" {
		return durable.Replace(to, 0o644, func(w io.Writer) error { _, err := w.Write(data); return err })
	}
	_, err = stdout.Write(data)
	return err
}

func (f *firmwareCommand) inspect() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "inspect RELEASE",
		Short: "Say what is in a release, and with --root whether devices believe it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(f.output); err != nil {
				return err
			}
			r, err := readRelease(args[0])
			if err != nil {
				return err
			}
			believed := "not checked (--root)"
			if root != "" {
				data, err := os.ReadFile(root)
				if err != nil {
					return err
				}
				if err := maker.Verify(data, r, time.Now()); err != nil {
					return err
				}
				believed = "yes"
			}
			if f.output == "json" {
				signed := r.Spec.Metadata != nil
				r.Spec.Metadata = nil
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"name": r.Name, "spec": r.Spec, "signed": signed, "believed": root != ""})
			}
			return describeRelease(cmd.OutOrStdout(), r, believed)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the root.json that devices have")
	return cmd
}

func describeRelease(w io.Writer, r *firmwarev1.Release, believed string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { _, _ = fmt.Fprintf(table, "%s\t%v\n", name, value) }
	row("Release:", r.Name)
	row("Version:", r.Spec.Version)
	row("Counter:", r.Spec.Counter)
	if r.Spec.SecurityFloor != 0 {
		row("Security floor:", r.Spec.SecurityFloor)
	}
	row("Hardware:", strings.Join(r.Spec.HardwareIDs, ", "))
	for _, a := range r.Spec.Artifacts {
		row("Artifact:", fmt.Sprintf("%s, %d bytes, sha256 %s", a.Name, a.Size, a.SHA256))
		row("", a.URL)
		if c := a.Chunks; c != nil {
			row("", fmt.Sprintf("%s, %d bytes in chunks, the index %d bytes of it, sha256 %s", c.URL, c.Size, c.IndexSize, c.IndexSHA256))
		}
	}
	if r.Spec.Metadata == nil {
		row("Signed:", "no")
	} else {
		row("Signed:", "yes")
		row("Believed:", believed)
	}
	return table.Flush()
}
