package firmware

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// slotFile is a partition, or a file that stands for one.
type slotFile struct{ *os.File }

// OpenSlot opens a partition or a file as a slot. After Sync, what is read comes from the medium and not from the page cache.
func OpenSlot(path string) (Slot, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return slotFile{f}, nil
}

func (s slotFile) Sync() error {
	if err := s.File.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(s.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop the page cache: %w", err)
	}
	return nil
}
