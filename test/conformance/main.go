// Command conformance runs cases of the upstream end-to-end suite against a cluster of shoal that it starts for them, remembers how
// each case went in results.yaml, and writes docs/conformance.md from that. make conformance builds what it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the command's flags.
type options struct {
	root, focus, kubeconfig string
	all, document, fresh    bool
	procs                   int
	timeout                 time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", "../..", "the top of the repository")
	flag.StringVar(&o.focus, "focus", "", "regular expression: which cases to run; all if empty")
	flag.BoolVar(&o.all, "all", false, "also cases that are not part of the conformance suite")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "use this cluster instead of starting one")
	flag.BoolVar(&o.fresh, "new", false, "leave out the cases that cases.yaml says fail")
	flag.IntVar(&o.procs, "procs", 4, "how many cases to run at a time")
	flag.BoolVar(&o.document, "document", false, "run nothing: write the document anew from what is remembered")
	flag.DurationVar(&o.timeout, "timeout", time.Hour, "when to stop the suite")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	tally, err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	if o.document && err == nil {
		return
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", tally.passed, tally.failed, tally.skipped)
	if err != nil || tally.failed > 0 {
		os.Exit(1)
	}
}

// tally counts the cases of a run.
type tally struct{ passed, failed, skipped int }

func run(ctx context.Context, o options) (_ tally, err error) {
	if o.root, err = filepath.Abs(o.root); err != nil {
		return tally{}, err
	}
	s := &suite{options: o, build: filepath.Join(o.root, ".build", "conformance")}
	book, err := openBook(o.root)
	if err != nil {
		return tally{}, err
	}
	suiteCases, err := s.list(ctx)
	if err != nil {
		return tally{}, err
	}
	if o.document {
		return tally{}, book.write(suiteCases)
	}
	if o.kubeconfig == "" {
		c, err := startCluster(ctx, o.root, filepath.Join(s.build, "images"))
		if err != nil {
			return tally{}, err
		}
		defer func() { err = errors.Join(err, c.stop()) }()
		s.kubeconfig = c.kubeconfig
	}
	cases, err := s.run(ctx, book.Skip, book.Why)
	if err != nil {
		return tally{}, err
	}
	var t tally
	for _, c := range cases {
		switch c.State {
		case passed:
			t.passed++
		case failed:
			t.failed++
		default:
			t.skipped++
		}
	}
	if o.kubeconfig != "" { // a cluster of the caller's: how it went there says little about others
		return t, nil
	}
	book.note(o.focus, cases, t)
	return t, book.write(suiteCases)
}
