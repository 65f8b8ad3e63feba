package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/durable"
	"github.com/shoal-edge/shoal/firmware"
	"github.com/shoal-edge/shoal/firmware/chunks"
)

// exportedRelease is the release in a folder that was exported.
const exportedRelease = "release.yaml"

// packSuffix is what the name of a pack, and its URL where nothing else is said, has more than the artifact's.
const packSuffix = ".pack"

func (f *firmwareCommand) pack() *cobra.Command {
	var files []string
	var dir, to string
	cmd := &cobra.Command{
		Use:   "pack RELEASE --artifact NAME=FILE",
		Short: "Cut a release's artifacts into chunks, of which devices fetch only what they lack",
		Long: `Cut a release's artifacts into chunks, of which devices fetch only what they lack.

For each artifact a file DIR/NAME.pack is written: its pieces, compressed, and an index of them. It goes to a web server that answers
requests for ranges, as all common ones do, under the artifact's URL with .pack at its end, or the URL that the artifact names under chunks. A
device cuts the release that it runs in the same way, and fetches the pieces that are new.

The release with all that devices have to know of the packs, and with sizes and hashes of the artifacts, goes to standard output, or to a
file. It is to be signed afterwards, if devices want that.`,
		Example: "  shoal firmware pack os-2.4.1.yaml --artifact image=build/os.img --dir build --to build/os-2.4.1.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(f.output); err != nil {
				return err
			}
			if len(files) == 0 {
				return usageError{errors.New("name the file of an artifact: --artifact NAME=FILE")}
			}
			release, err := readRelease(args[0])
			if err != nil {
				return err
			}
			if release.Spec.Metadata != nil {
				return fmt.Errorf("%s is signed already, and its chunks would not be: pack first", args[0])
			}
			artifacts, err := filesOf(release, files)
			if err != nil {
				return err
			}
			if err := measure(artifacts, cmd.ErrOrStderr()); err != nil {
				return err
			}
			for _, a := range artifacts {
				if err := packArtifact(a, filepath.Join(dir, a.Name+packSuffix), cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			return f.write(cmd.OutOrStdout(), release, to)
		},
	}
	cmd.Flags().StringArrayVar(&files, "artifact", nil, "NAME=FILE: the file of an artifact; may be given several times")
	cmd.Flags().StringVar(&dir, "dir", ".", "folder for the packs")
	cmd.Flags().StringVar(&to, "to", "", "file for the release (default: standard output)")
	return cmd
}

func packArtifact(a fileOf, to string, stderr io.Writer) error {
	file, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	var sum chunks.Summary
	err = durable.Replace(to, 0o644, func(w io.Writer) error {
		bar := newProgress(stderr, "packing "+a.Name, a.Size)
		defer bar.end()
		sum, err = chunks.Pack(w, io.TeeReader(file, bar))
		return err
	})
	if err != nil {
		return err
	}
	if a.Chunks == nil {
		a.Chunks = &firmwarev1.Chunks{URL: a.URL + packSuffix}
	}
	a.Chunks.Size, a.Chunks.IndexSize, a.Chunks.IndexSHA256 = sum.Size, sum.IndexSize, sum.IndexSHA256
	_, _ = fmt.Fprintf(stderr, "%s: %d of %d bytes, in %d pieces, the index %d bytes of it; put it at %s\n",
		to, sum.Size, a.Size, sum.Distinct, sum.IndexSize, a.Chunks.URL)
	return nil
}

func (f *firmwareCommand) export() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "export RELEASE DIR",
		Short: "Put a release with its artifacts into a folder, such as on a USB stick",
		Long: `Put a release with its artifacts into a folder, such as on a USB stick.

Artifacts come from the URLs that the release names, or from files, and are compared with their hashes. On the site, 'shoal firmware
import' takes them from the folder; its release.yaml is for kubectl.`,
		Example: "  shoal firmware export signed.yaml /media/usb/os-2.4.1",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(f.output); err != nil {
				return err
			}
			release, err := readRelease(args[0])
			if err != nil {
				return err
			}
			artifacts, err := filesOf(release, files)
			if err != nil {
				return err
			}
			dir := args[1]
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			err = f.copyArtifacts(cmd, release, firmware.Artifacts(dir), func(a *firmwarev1.Artifact) (io.ReadCloser, error) {
				for _, f := range artifacts {
					if f.Artifact == a {
						return os.Open(f.path)
					}
				}
				return fetchArtifact(cmd.Context(), a.URL)
			})
			if err != nil {
				return err
			}
			return f.write(io.Discard, release, filepath.Join(dir, exportedRelease)) // last: a folder with it is whole
		},
	}
	cmd.Flags().StringArrayVar(&files, "artifact", nil, "NAME=FILE: the file of an artifact, instead of its URL; may be given several times")
	return cmd
}

func fetchArtifact(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := firmware.NewClient().Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %s", url, response.Status), response.Body.Close())
	}
	return response.Body, nil
}

func (f *firmwareCommand) importFolder() *cobra.Command {
	var root, config string
	var hardware []string
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Give this device, and through it its neighbours, the artifacts of a folder",
		Long: `Give this device, and through it its neighbours, the artifacts of a folder that 'shoal firmware export' made.

They are copied into agent.firmware.artifacts, by default /var/lib/shoal/artifacts. Devices of the same network that are told to install the
release get them from this one and ask the release's URL for nothing. The release itself is made known as always, by kubectl apply -f
DIR/release.yaml. When no device needs the artifacts any more, the files may be removed.`,
		Example: "  shoal firmware import /media/usb/os-2.4.1 && kubectl apply -f /media/usb/os-2.4.1/release.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(f.output); err != nil {
				return err
			}
			release, err := readRelease(filepath.Join(args[0], exportedRelease))
			if err != nil {
				return err
			}
			c, err := configs.Load(config)
			if err != nil {
				return err
			}
			if len(hardware) > 0 {
				if release.Spec.Artifacts, err = artifactsFor(&release.Spec, hardware); err != nil {
					return err
				}
			}
			to := firmware.Artifacts(filepath.Join(root, c.Agent.Firmware.Artifacts))
			return f.copyArtifacts(cmd, release, to, func(a *firmwarev1.Artifact) (io.ReadCloser, error) {
				return firmware.Artifacts(args[0]).Open(a.SHA256)
			})
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "where the device's file system is mounted")
	cmd.Flags().StringVar(&config, "config", "", "the device's configuration file")
	cmd.Flags().StringSliceVar(&hardware, "hardware", nil, "import only what is for these kinds of hardware")
	return cmd
}

func artifactsFor(spec *firmwarev1.ReleaseSpec, hardware []string) ([]firmwarev1.Artifact, error) {
	var some []firmwarev1.Artifact
	seen := map[string]bool{}
	for _, id := range hardware {
		a := spec.ArtifactFor(id)
		if a == nil {
			return nil, fmt.Errorf("the release has nothing for hardware %q; it has for %s", id, strings.Join(spec.HardwareIDs, ", "))
		}
		if !seen[a.Name] {
			seen[a.Name] = true
			some = append(some, *a)
		}
	}
	return some, nil
}

// copyArtifacts puts the release's artifacts into a folder, but for those that are there.
func (f *firmwareCommand) copyArtifacts(
	cmd *cobra.Command, r *firmwarev1.Release, to firmware.Artifacts, open func(a *firmwarev1.Artifact) (io.ReadCloser, error),
) error {
	type copied struct {
		Artifact string `json:"artifact"`
		File     string `json:"file"`
		Size     int64  `json:"size"`
		Had      bool   `json:"alreadyThere"`
	}
	all := []copied{}
	for i := range r.Spec.Artifacts {
		a := &r.Spec.Artifacts[i]
		c := copied{a.Name, filepath.Join(string(to), a.SHA256), a.Size, to.Has(cmd.Context(), a.SHA256)}
		if !c.Had {
			from, err := open(a)
			if err != nil {
				return fmt.Errorf("artifact %s: %w", a.Name, err)
			}
			bar := newProgress(cmd.ErrOrStderr(), "copying "+a.Name, a.Size)
			err = to.Add(a.SHA256, a.Size, io.TeeReader(from, bar))
			bar.end()
			if err := errors.Join(err, from.Close()); err != nil {
				return fmt.Errorf("artifact %s: %w", a.Name, err)
			}
		}
		all = append(all, c)
	}
	if f.output == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"release": r.Name, "artifacts": all})
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, c := range all {
		note := ""
		if c.Had {
			note = "was there already"
		}
		_, _ = fmt.Fprintf(table, "%s\t%d bytes\t%s\t%s\n", c.Artifact, c.Size, c.File, note)
	}
	return table.Flush()
}
