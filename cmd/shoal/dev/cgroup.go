package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupOf is the cgroup that holds all pods of a lab; each device's are one level below.
func cgroupOf(lab string) string { return "/shoal-lab-" + lab }

// removeCgroups removes a tree of cgroups in every hierarchy. Their processes have ended, but the kernel may need a moment.
func removeCgroups(path string) error {
	hierarchies := []string{cgroupRoot}
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err != nil {
		entries, err := os.ReadDir(cgroupRoot)
		if err != nil {
			return fmt.Errorf("cgroups: %w", err)
		}
		for _, e := range entries {
			hierarchies = append(hierarchies, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for _, h := range hierarchies {
		for {
			err := removeTree(filepath.Join(h, path))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("cgroups: %w", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// removeTree removes the folders of a cgroup tree from the leaves up; the files in them are not files.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove %s: %w", strings.TrimPrefix(dir, cgroupRoot), err)
	}
	return nil
}
