package memory

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgramPages unmaps the clean pages of the executable. They are the file's: what is used again comes back from the page cache, a page
// at a time.
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
