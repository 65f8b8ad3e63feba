// Command powercut cuts the power of a server again and again and checks each time that nothing was lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"github.com/shoal-edge/shoal/test/powercut"
	"github.com/shoal-edge/shoal/test/powercut/isolate"
)

func main() {
	cuts := flag.Int("cuts", 100, "how many power cuts")
	seed := flag.Uint64("seed", 1, "the first one's seed; each further one has the next")
	binary := flag.String("shoal", "bin/shoal", "the binary to test")
	flag.Parse()
	isolate.Main("powercut", func(ctx context.Context) (int, error) { return run(ctx, *binary, *seed, *cuts) })
}

func run(ctx context.Context, binary string, seed uint64, cuts int) (failed int, err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return 0, err
	}
	bench, err := powercut.NewBench()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, bench.Close()) }()
	suite, err := powercut.NewSuite(ctx, bench, binary)
	if err != nil {
		return 0, err
	}
	began, passed := time.Now(), 0
	var slowest time.Duration
	for i := range uint64(max(cuts, 0)) {
		r := suite.Episode(ctx, seed+i)
		if ctx.Err() != nil {
			return failed, ctx.Err()
		}
		fmt.Println(r)
		if slowest = max(slowest, r.Ready); r.Passed() {
			passed++
		} else {
			failed++
			fmt.Printf("  again: make powercut CUTS=1 SEED=%d\n", r.Seed)
		}
	}
	fmt.Printf("slowest to be ready: %d ms; %.1f s a cut\n", slowest.Milliseconds(), time.Since(began).Seconds()/float64(max(cuts, 1)))
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	return failed, nil
}
