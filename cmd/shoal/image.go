package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-edge/shoal/agent/runtime"
	"github.com/shoal-edge/shoal/agent/runtime/archive"
	"github.com/shoal-edge/shoal/agent/runtime/cri"
	"github.com/shoal-edge/shoal/configs"
	"github.com/shoal-edge/shoal/durable"
)

// imageCommand is what the image commands share. They work on this device's containerd, whether an agent runs or not.
type imageCommand struct {
	config, socket, output string
}

func newImage() *cobra.Command {
	i := &imageCommand{}
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Bring images to this device without a registry, and take them from it",
		Long: `Bring images to this device without a registry, and take them from it.

Archives are OCI image layouts in a tar, as shoal, containerd, podman and Docker write them, or what older versions of 'docker save'
wrote. They may be packed by gzip. A device never removes an image by itself that it did not get from a registry.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVarP(&i.config, "config", "c", "", "the device's configuration file (default: built-in defaults only)")
	cmd.PersistentFlags().StringVar(&i.socket, "containerd", "", "containerd's socket (default: agent.containerd of the configuration)")
	outputFlag(cmd.PersistentFlags(), &i.output)
	cmd.AddCommand(i.list(), i.importing(), i.export(), i.seed(), i.verify())
	return cmd
}

// with calls f with the device's stores.
func (i *imageCommand) with(f func(*cri.Runtime) error) error {
	if err := checkOutput(i.output); err != nil {
		return err
	}
	c, err := configs.Load(i.config)
	if err != nil {
		return err
	}
	socket := i.socket
	if socket == "" {
		socket = c.Agent.Containerd
	}
	r, err := cri.New(cri.Config{Socket: socket})
	if err != nil {
		return err
	}
	err = f(r)
	if errors.Is(err, runtime.ErrUnavailable) {
		err = fmt.Errorf("%w; this command runs on the device, as root: is containerd at %s?", err, socket)
	}
	return errors.Join(err, r.Close())
}

func (i *imageCommand) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the images of this device",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return i.with(func(r *cri.Runtime) error {
				known, err := r.Content().Images(cmd.Context())
				if err != nil {
					return err
				}
				all := []archive.Named{}
				for _, name := range slices.Sorted(maps.Keys(known)) {
					all = append(all, archive.Named{Name: name, Digest: known[name].Digest})
				}
				return i.print(cmd.OutOrStdout(), all)
			})
		},
	}
}

func (i *imageCommand) print(w io.Writer, all []archive.Named) error {
	if i.output == "json" {
		return json.NewEncoder(w).Encode(map[string]any{"images": all})
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "NAME\tDIGEST")
	for _, img := range all {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", img.Name, img.Digest)
	}
	return table.Flush()
}

func (i *imageCommand) importing() *cobra.Command {
	var names []string
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Put the images of archives into this device's containerd",
		Long: `Put the images of archives into this device's containerd; - reads from standard input.

Each piece is checked by its digest. An image has its name only when all of it is there, so an import that is cut off is done again.`,
		Example: "  shoal image import /media/usb/press.tar\n  ssh builder docker save press:1 | shoal image import -",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(names) > 0 && len(args) > 1 {
				return usageError{errors.New("--name is for one archive")}
			}
			return i.with(func(r *cri.Runtime) error {
				var all []archive.Named
				for _, file := range args {
					got, err := importFile(cmd.Context(), r, file, cmd.InOrStdin(), cmd.ErrOrStderr(), names)
					if err != nil {
						return fmt.Errorf("%s: %w", file, err)
					}
					all = append(all, got...)
				}
				return i.print(cmd.OutOrStdout(), all)
			})
		},
	}
	cmd.Flags().StringArrayVar(&names, "name", nil, "the image's name, instead of that in the archive; may be given several times")
	return cmd
}

func importFile(ctx context.Context, r *cri.Runtime, path string, stdin io.Reader, stderr io.Writer, names []string) ([]archive.Named, error) {
	if path == "-" {
		return r.ImportArchive(ctx, stdin, names...)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	bar := newProgress(stderr, "importing", stat.Size())
	defer bar.end()
	return r.ImportArchive(ctx, io.TeeReader(file, bar), names...)
}

func (i *imageCommand) export() *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE NAME...",
		Short: "Write images of this device into an archive",
		Long: `Write images of this device into an archive, an OCI image layout in a tar; - writes to standard output.

FILE takes the place of an older one only when it is complete.`,
		Example: "  shoal image export /media/usb/press.tar factory.example/press:1 factory.example/camera:4",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return i.with(func(r *cri.Runtime) (err error) {
				var all []archive.Named
				write := func(w io.Writer) error {
					bar := newProgress(cmd.ErrOrStderr(), "exporting", 0)
					defer bar.end()
					all, err = archive.Export(cmd.Context(), r.Content(), io.MultiWriter(w, bar), args[1:]...)
					return err
				}
				if args[0] == "-" {
					return write(cmd.OutOrStdout())
				}
				if err := durable.Replace(args[0], 0o644, write); err != nil {
					return err
				}
				return i.print(cmd.OutOrStdout(), all)
			})
		},
	}
}

func (i *imageCommand) seed() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "seed FILE...",
		Short: "Put archives where a device imports them from when it starts",
		Long: `Put archives into the folder agent.imageSeeds, from which the device's agent imports images when it starts and when one comes.

With --root the folder is that of another device's disk: a card that has just been written starts its pods without a network.`,
		Example: "  shoal image seed press.tar\n  shoal image seed --root /mnt/card press.tar",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(i.output); err != nil {
				return err
			}
			c, err := configs.Load(i.config)
			if err != nil {
				return err
			}
			dir := filepath.Join(root, c.Agent.ImageSeeds)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			written := []string{}
			for _, file := range args {
				to := filepath.Join(dir, filepath.Base(file))
				if err := copyArchive(cmd.Context(), file, to, cmd.ErrOrStderr()); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				written = append(written, to)
			}
			if i.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"seeds": written})
			}
			for _, to := range written {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), to)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "where the device's file system is mounted")
	return cmd
}

// copyArchive copies an archive once it is known to be whole.
func copyArchive(ctx context.Context, from, to string, stderr io.Writer) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	return durable.Replace(to, 0o644, func(w io.Writer) error {
		bar := newProgress(stderr, "copying", stat.Size())
		defer bar.end()
		return archive.Check(ctx, io.TeeReader(file, io.MultiWriter(w, bar)))
	})
}

func (i *imageCommand) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "Read all of this device's images and check them by their digests",
		Long: `Read all of this device's images, or those named, and check them by their digests. The exit status is 1 if one is damaged.

To mend one, remove it ('crictl rmi') and have it pulled or imported again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return i.with(func(r *cri.Runtime) error {
				begin := time.Now()
				all, size, err := archive.Verify(cmd.Context(), r.Content(), args...)
				if err != nil {
					return err
				}
				if i.output != "json" {
					_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%d images, %d MiB, whole after %s\n", len(all), size>>20, time.Since(begin).Round(time.Millisecond))
				}
				return i.print(cmd.OutOrStdout(), all)
			})
		},
	}
}
