package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"
)

// Config says what to run.
type Config struct {
	// Name and Subnet are the lab's.
	Name   string
	Subnet uint8
	// Shoal is the product, Failpoints the same built with the tag shoal_failpoints.
	Shoal, Failpoints string
	// Seed names the first episode; the others follow.
	Seed     uint64
	Episodes int
	// Short makes episodes of two or three seconds.
	Short bool
	// Evidence is the folder that gets the logs and the history of each episode that fails.
	Evidence string
	Out      io.Writer
	Logger   *slog.Logger
}

// Run runs the episodes and returns how many passed and how many failed. An error says that it could not go on.
func Run(ctx context.Context, cfg Config) (passed, failed int, err error) {
	set := long()
	if cfg.Short {
		set = short()
	}
	var st *stage
	var sum total
	defer func() {
		if st != nil {
			err = errors.Join(err, st.Close())
		}
		_, _ = fmt.Fprintln(cfg.Out, &sum)
	}()
	var previous *plan
	for i := range cfg.Episodes {
		if ctx.Err() != nil {
			return passed, failed, ctx.Err()
		}
		p := newPlan(cfg.Seed+uint64(i), set)
		if st != nil && (previous.size != p.size || previous.failpoints != p.failpoints) {
			err := st.Close()
			st = nil
			if err != nil {
				return passed, failed, err
			}
		}
		previous = p
		if st == nil {
			if st, err = cfg.stage(ctx, p); err != nil {
				return passed, failed, err
			}
		}
		start := time.Now()
		r := st.play(ctx, p)
		if ctx.Err() != nil {
			return passed, failed, ctx.Err()
		}
		_, _ = fmt.Fprintf(cfg.Out, "%s (%.1fs)\n", r, time.Since(start).Seconds())
		sum.add(r)
		if len(r.Problems) == 0 {
			passed++
			continue
		}
		failed++
		dir := filepath.Join(cfg.Evidence, fmt.Sprintf("seed-%d", p.seed))
		err := errors.Join(st.keep(dir, r), st.Close()) // what is left is not to be trusted
		st = nil
		if err != nil {
			return passed, failed, err
		}
		_, _ = fmt.Fprintf(cfg.Out, "    logs and history: %s\n    again: make chaos EPISODES=1 SEED=%d\n", dir, p.seed)
	}
	return passed, failed, nil
}

// stage makes a cluster of the kind that a plan wants.
func (cfg *Config) stage(ctx context.Context, p *plan) (*stage, error) {
	binary := cfg.Shoal
	if p.failpoints {
		binary = cfg.Failpoints
	}
	c, err := newCluster(ctx, cfg.Name, cfg.Subnet, p.size, binary, p.failpoints, cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("%s: make the cluster: %w", p, err)
	}
	st, err := newStage(ctx, c)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p, err), c.Close())
	}
	return st, nil
}

// total is what all episodes were together.
type total struct {
	Report
	slowest time.Duration
}

func (t *total) add(r *Report) {
	t.Ops += r.Ops
	t.Unknown += r.Unknown
	t.Load += r.Load
	t.Events += r.Events
	t.Streams += r.Streams
	t.Lists += r.Lists
	t.Marks += r.Marks
	t.Gone += r.Gone
	t.slowest = max(t.slowest, r.Settled)
}

func (t *total) String() string {
	return fmt.Sprintf("together: %d ops in %.0fs, %.0f/s, %d unknown; %d events on %d streams, %d lists, %d bookmarks, %d times 410; equal after %.1fs at most",
		t.Ops, t.Load.Seconds(), float64(t.Ops)/max(1, t.Load.Seconds()), t.Unknown, t.Events, t.Streams, t.Lists, t.Marks, t.Gone, t.slowest.Seconds())
}
