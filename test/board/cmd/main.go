// Command board takes a virtual board through updates of its firmware, good ones and bad ones, and cuts its power on the way.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-edge/shoal/test/board"
	"github.com/shoal-edge/shoal/test/powercut/isolate"
)

func main() {
	cuts := flag.Int("cuts", 20, "how many updates with power cuts")
	seed := flag.Uint64("seed", 1, "the first one's seed; each further one has the next")
	shoal := flag.String("shoal", "bin/shoal", "the binary of the server")
	dir := flag.String("dir", ".build/board", "folder with the kernel and the binaries of the board, see the Makefile")
	short := flag.Bool("short", false, "only a good release with a power cut, and one that panics")
	image := flag.String("image", "", "only make an image of a board's disk, in this file")
	server := flag.String("server", "", "where the agent in that image finds a server, host:port")
	token := flag.String("token", "", "the token that the agent joins with")
	flag.Parse()
	if *image != "" {
		if err := makeImage(context.Background(), *dir, *image, *server, *token); err != nil {
			fmt.Fprintln(os.Stderr, "board:", err)
			os.Exit(1)
		}
		return
	}
	plans := []board.Plan{{Does: "good", Packed: true, Cuts: 1, Seed: *seed}, {Does: "a panic"}}
	if !*short {
		plans = allPlans(*seed, *cuts)
	}
	isolate.Main("board", func(ctx context.Context) (int, error) { return run(ctx, *shoal, *dir, plans) })
}

// allPlans are one of each kind without power cuts, and those of the seeds.
func allPlans(seed uint64, cuts int) []board.Plan {
	plans := []board.Plan{{Does: "good"}, {Does: "good", Packed: true}, {Does: "a panic"}, {Does: "a missing root"}, {Does: "a hang"}, {Does: "sick"}}
	for i := range uint64(max(cuts, 0)) {
		plans = append(plans, board.Planned(seed+i))
	}
	return plans
}

// makeImage makes an image of a board's disk, with an agent that joins a server.
func makeImage(ctx context.Context, dir, image, server, token string) error {
	if server == "" || token == "" {
		return errors.New("an image needs a server (host:port) and a token that its agent joins with: shoal token create --role agent")
	}
	content, err := board.FromFolder(dir, filepath.Join(dir, "image")).Disk(ctx, map[string]string{"config.yaml": board.Config(server, token)})
	if err != nil {
		return err
	}
	return os.WriteFile(image, content, 0o600)
}

func run(ctx context.Context, shoal, dir string, plans []board.Plan) (failed int, err error) {
	if shoal, err = filepath.Abs(shoal); err != nil {
		return 0, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return 0, err
	}
	bench, err := board.NewBench(ctx, isolate.Scratch, shoal, board.FromFolder(dir, filepath.Join(isolate.Scratch, "images")))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, bench.Close()) }()
	passed := 0
	for _, p := range plans {
		began := time.Now()
		told, err := bench.Run(ctx, p)
		if ctx.Err() != nil {
			return failed, ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Printf("%s: %s; FAILED (%.0f s): %v\n", p, told, time.Since(began).Seconds(), err)
			continue
		}
		passed++
		fmt.Printf("%s: %s; ok (%.0f s)\n", p, told, time.Since(began).Seconds())
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	return failed, nil
}
