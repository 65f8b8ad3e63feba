// Command upstreamimages writes the images that the upstream end-to-end suite asks for as an OCI image layout:
// upstreamimages BINARIES DIR.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/shoal-edge/shoal/test/images"
	"github.com/shoal-edge/shoal/test/images/upstream"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/images/cmd/upstreamimages BINARIES DIR   (from the top of the repository)")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := write(ctx, os.Args[1], os.Args[2])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(ctx context.Context, binaries, dir string) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return fmt.Errorf("find the module k8s.io/kubernetes: %w", err)
	}
	list, err := upstream.Images(ctx, upstream.Sources{Binaries: binaries, Kubernetes: strings.TrimSpace(string(out))})
	if err != nil {
		return err
	}
	return images.Write(dir, list)
}
