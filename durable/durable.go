// Package durable owns the writing of files that must be whole after any power cut: the old one or the new one.
package durable

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Write puts data into the place of the file at path. Its folder must be there.
func Write(path string, data []byte, mode os.FileMode) error {
	return Replace(path, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Update is Write for a file that is often right already; then nothing is written. It makes the folder (0755) if it is missing, and
// reports whether it had to write.
func Update(path string, data []byte, mode os.FileMode) (written bool, err error) {
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, data) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	err = Write(path, data, mode)
	return err == nil, err
}

// Replace has write make the new file, and puts it into the place of the one at path when all of it is on the disk: a temporary file, fsync,
// rename, fsync of the folder. The temporary file's name begins with a dot, so nobody takes it for a finished one.
func Replace(path string, mode os.FileMode, write func(io.Writer) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		}
	}()
	buffered := bufio.NewWriterSize(file, 64<<10)
	if err := write(buffered); err != nil {
		return err
	}
	if err := errors.Join(buffered.Flush(), file.Chmod(mode), file.Sync()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return errors.Join(syncFolder(filepath.Dir(path)), file.Close())
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
