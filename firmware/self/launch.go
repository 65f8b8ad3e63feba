package self

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// Launch becomes the copy of shoal that is to run, with those arguments; it returns only if none of the copies starts, nor the binary at
// fallback, which is the one that the device was made with. A try is spent before the copy is started, so a copy that ends the
// device spends it too.
func Launch(dir, fallback string, args []string, stderr io.Writer) error {
	var failures error
	for _, c := range choose(dir, fallback) {
		if c.spend != nil {
			if err := c.spend(); err != nil { // a disk that takes nothing: the copy could be tried for ever
				failures = errors.Join(failures, fmt.Errorf("count a try of %s: %w", c.path, err))
				continue
			}
		}
		environment := []string{SlotVariable + "=" + c.slot}
		for _, v := range os.Environ() {
			if !strings.HasPrefix(v, SlotVariable+"=") {
				environment = append(environment, v)
			}
		}
		err := syscall.Exec(c.path, append([]string{c.path}, args...), environment)
		failures = errors.Join(failures, fmt.Errorf("start %s: %w", c.path, err))
		if !errors.Is(err, os.ErrNotExist) {
			_, _ = fmt.Fprintf(stderr, "shoal: start %s: %v\n", c.path, err)
		}
	}
	return failures
}

// candidate is a copy that may be started. Spend, if there is one, comes first.
type candidate struct {
	slot, path string
	spend      func() error
}

// choose says which copies to start, the most wanted first.
func choose(dir, fallback string) []candidate {
	r := readRecord(dir)
	var all []candidate
	if r.Trying != "" && r.Left > 0 {
		all = append(all, candidate{r.Trying, binary(dir, r.Trying), func() error {
			spent := r
			spent.Left--
			return spent.save(dir)
		}})
	}
	return append(all, candidate{r.Default, binary(dir, r.Default), nil}, candidate{r.Default, fallback, nil})
}
