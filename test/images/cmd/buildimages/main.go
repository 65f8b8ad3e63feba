// Command buildimages writes the demonstration images as an OCI image layout: buildimages DIR.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/shoal-edge/shoal/test/images"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/images/cmd/buildimages DIR   (from the top of the repository)")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := images.Build(ctx, ".", os.Args[1], "v1", "v2", "broken")
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
