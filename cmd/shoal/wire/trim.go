package wire

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settled is when a process has done what it does only at its start.
const settled = 20 * time.Second

// giveBack returns, once, the memory that only the start needed: free heap, and the pages of the program itself that tables
// and initialisers touched. What is used again comes back from the page cache, a page at a time.
func giveBack(ctx context.Context, o Options) error {
	select {
	case <-time.After(settled):
	case <-ctx.Done():
		return ctx.Err()
	}
	debug.FreeOSMemory()
	if err := dropProgramPages(); err != nil {
		o.Logger.Debug("the program's pages stay in memory", "error", err)
	}
	return nil
}

// giveBackBursts does so again, for the heap, when a crowd of devices has come or gone and it is quiet: their coming takes much
// more memory than their being there.
func giveBackBursts(ctx context.Context, connected func() int) error {
	look := time.NewTicker(settled)
	defer look.Stop()
	last, given := 0, 0
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
		now := connected()
		crowd := max(now-given, given-now)
		if now == last && crowd >= leastCrowd && crowd*4 >= given {
			debug.FreeOSMemory()
			given = now
		}
		last = now
	}
}

// leastCrowd is from how many devices on it is worth it.
const leastCrowd = 50

// dropProgramPages unmaps the clean pages of the executable: they are the file's, so nothing is lost.
func dropProgramPages() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer func() { _ = maps.Close() }()
	return eachReadOnly(maps, program, func(start, end uintptr) error {
		if _, _, code := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); code != 0 {
			return fmt.Errorf("madvise: %w", code)
		}
		return nil
	})
}

// eachReadOnly calls f for each mapping of a file that the process cannot write to. The format is that of proc_pid_maps(5).
func eachReadOnly(maps io.Reader, file string, f func(start, end uintptr) error) error {
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var (
			start, end uintptr
			mode       string
		)
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode); err != nil {
			return fmt.Errorf("read the memory map: %w", err)
		}
		if strings.Contains(mode, "w") || !strings.HasSuffix(lines.Text(), " "+file) {
			continue
		}
		if err := f(start, end); err != nil {
			return err
		}
	}
	return lines.Err()
}
