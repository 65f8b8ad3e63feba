package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// maxLine bounds a line, in bytes.
const maxLine = 1 << 20

// file is the present file of a log.
type file struct {
	path string
	f    *os.File
	w    *bufio.Writer
	size int64
}

// open opens a file for appending, and finds the hash of its last line, or of its predecessor's. A line that was cut off by a power cut
// is taken away; torn is how many bytes it had.
func open(path string) (_ *file, last string, torn int, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, "", 0, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", 0, err
	}
	last, whole, size, err := end(f)
	if err == nil && last == "" {
		last, err = lastOf(old(path, 1))
	}
	if err == nil && size > whole {
		torn = int(size - whole)
		err = f.Truncate(whole)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return nil, "", 0, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return &file{path: path, f: f, w: bufio.NewWriter(f), size: whole}, last, torn, nil
}

// end finds the hash of the last whole line, where it ends, and how long the file is.
func end(f io.ReadSeeker) (last string, whole, size int64, err error) {
	if size, err = f.Seek(0, io.SeekEnd); err != nil || size == 0 {
		return "", 0, size, err
	}
	from := max(0, size-2*maxLine)
	if _, err = f.Seek(from, io.SeekStart); err != nil {
		return "", 0, size, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return "", 0, size, err
	}
	stop := bytes.LastIndexByte(data, '\n')
	if stop < 0 {
		return "", from, size, nil
	}
	start := bytes.LastIndexByte(data[:stop], '\n') + 1
	return hash(data[start:stop]), from + int64(stop) + 1, size, nil
}

// lastOf is the hash of the last line of a file, empty when there is none.
func lastOf(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	last, _, _, err := end(f)
	return last, err
}

// old is the name of the nth file before the present one.
func old(path string, n int) string { return path + "." + strconv.Itoa(n) }

// append adds a line, in a new file if this one would become too large.
func (f *file) append(line []byte, maxBytes int64, maxFiles int) error {
	if maxBytes > 0 && f.size > 0 && f.size+int64(len(line)) > maxBytes {
		if err := f.rotate(maxFiles); err != nil {
			return err
		}
	}
	if _, err := f.w.Write(line); err != nil {
		return errors.Join(err, f.f.Close())
	}
	f.size += int64(len(line))
	return nil
}

// rotate renames the files and begins a new one.
func (f *file) rotate(maxFiles int) error {
	if err := f.close(); err != nil {
		return err
	}
	if err := os.Remove(old(f.path, maxFiles)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for n := maxFiles - 1; n >= 1; n-- {
		if err := os.Rename(old(f.path, n), old(f.path, n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(f.path, old(f.path, 1)); err != nil {
		return err
	}
	fresh, _, _, err := open(f.path)
	if err != nil {
		return err
	}
	*f = *fresh
	return nil
}

// flush hands the lines to the kernel.
func (f *file) flush() error {
	if err := f.w.Flush(); err != nil {
		return errors.Join(err, f.f.Close())
	}
	return nil
}

func (f *file) close() error { return errors.Join(f.w.Flush(), f.f.Sync(), f.f.Close()) }
