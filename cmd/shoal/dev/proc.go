package dev

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what one process uses now; bytes, but for CPU, which is in clock ticks since its start.
type Usage struct {
	Device    string
	PID       int
	RSS, Anon int64
	Written   int64
	CPU       int64
}

// Usage measures every shoal process.
func (l *Lab) Usage() ([]Usage, error) {
	var all []Usage
	for _, d := range l.devices {
		pid := d.ShoalPID()
		if pid == 0 {
			continue
		}
		u, err := usageOf(pid)
		if err != nil {
			return nil, fmt.Errorf("lab: %s: %w", d.Name, err)
		}
		u.Device = d.Name
		all = append(all, u)
	}
	return all, nil
}

func usageOf(pid int) (Usage, error) {
	u := Usage{PID: pid}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u, err
	}
	u.RSS, u.Anon = field(status, "VmRSS:")<<10, field(status, "RssAnon:")<<10
	if io, err := os.ReadFile(filepath.Join(dir, "io")); err == nil {
		u.Written = field(io, "write_bytes:")
	}
	fields, err := statOf(pid)
	if err != nil {
		return u, err
	}
	user, _ := strconv.ParseInt(fields[statUser], 10, 64)
	system, _ := strconv.ParseInt(fields[statSystem], 10, 64)
	u.CPU = user + system
	return u, nil
}

func field(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			words := strings.Fields(string(rest))
			if len(words) == 0 {
				return 0
			}
			n, _ := strconv.ParseInt(words[0], 10, 64)
			return n
		}
	}
	return 0
}

// Fields of /proc/PID/stat, counted from the state, the first after the command's name in brackets.
const (
	statParent = 1
	statUser   = 11
	statSystem = 12
	statStart  = 19
)

func statOf(pid int) ([]string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil, err
	}
	_, rest, ok := strings.Cut(string(data[max(0, bytes.LastIndexByte(data, ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) <= statStart {
		return nil, fmt.Errorf("process %d: cannot read its state", pid)
	}
	return fields, nil
}

// startOf is the time of a process's start in clock ticks since boot: with the pid it names a process for good.
func startOf(pid int) (string, error) {
	fields, err := statOf(pid)
	if err != nil {
		return "", err
	}
	return fields[statStart], nil
}

// childOf finds a child of a process, 0 if it has none.
func childOf(pid int) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	parent := strconv.Itoa(pid)
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil || child <= pid {
			continue
		}
		if fields, err := statOf(child); err == nil && fields[statParent] == parent {
			return child
		}
	}
	return 0
}
