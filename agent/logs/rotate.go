package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Rotate moves a log file that is larger than max aside, in the place of the one moved before, and has reopen make the
// writer open a new one. It reports whether it did.
func Rotate(ctx context.Context, file string, max int64, reopen func(context.Context) error) (bool, error) {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() <= max {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("rotate log: %w", err)
	}
	aside := file + ".1"
	if err := os.Rename(file, aside); err != nil {
		return false, fmt.Errorf("rotate log: %w", err)
	}
	if err := reopen(ctx); err != nil {
		return false, errors.Join(fmt.Errorf("rotate log: %w", err), os.Rename(aside, file))
	}
	return true, nil
}
