package pki

import (
	"os"
	"path/filepath"

	"github.com/shoal-edge/shoal/durable"
)

// Write puts a file into a folder (made if missing, 0700) so that after a power cut there is the old content or the new one.
func Write(dir, name string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.Write(filepath.Join(dir, name), data, mode)
}
